"""Backbones of open_clip: CLIP ViT-B/16 (the default) and every other vision transformer of open_clip.

model.py     the model for the host                  tower.py   the visual encoder with T adapters at once
text.py      the text encoder, without open_clip     tokens.py  token counts, without weights
loading.py   loads a model from a file, cache or hub stored.py  cached facts about weight files
weights.py   reads and checks weight files           hub.py     weights from open_clip's cache or hub
parts.py     parts of open_clip without the rest
beside.py    settings in the files beside weights    said.py    a setting with its file and key
processor.py transformers' image processor           names.py   transformers' names for open_clip's tensors
agreement.py checks that files, tag and architecture agree

Encoding a sentence only needs the text encoder's tensors and a tokenizer. Importing open_clip takes longer than
generating an adapter, so it is imported for the first photo, or to inspect weights that are not cached.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from sglora_cli.api import RuntimeConfig, Terms, UsageError, hookimpl

if TYPE_CHECKING:
    from .model import OpenClipModel

SGLORA_API = "1.0"


@dataclass(frozen=True)
class OpenClip:
    """An architecture of open_clip, and the tag of its weights there ("" if they must come from a file)."""

    name: str
    architecture: str
    tag: str
    summary: str
    hub_name: str = ""
    """The name of the same weights in transformers and PEFT."""
    parameters: int = 0
    """Number of the model's parameters, each four bytes of the download; 0 if that is unknown."""
    weights_terms: tuple[Terms, ...] = ()

    def load(self, runtime: RuntimeConfig) -> OpenClipModel:
        """Load the model. Raises UnknownName for an unknown architecture or tag, Unavailable without weights, and
        Mismatch or BadFile for weights that do not match."""
        model: OpenClipModel = import_module("sglora_openclip.loading").load(self, runtime)
        return model

    def absent(self, runtime: RuntimeConfig) -> str:
        """Return which weights are missing on this machine, or ""."""
        if runtime.weights:
            return "" if os.path.exists(os.path.expanduser(runtime.weights)) else f"{runtime.weights} does not exist"
        lacking: str = import_module("sglora_openclip.hub").absent(self)
        return lacking

    def download_bytes(self, runtime: RuntimeConfig) -> int | None:
        """By the number of parameters; None for an architecture whose number is not known here."""
        if runtime.weights or not self.absent(runtime):
            return 0
        return 4 * self.parameters or None

    def terms(self) -> Sequence[Terms]:
        return self.weights_terms

    def token_limit(self) -> int:
        """Raises UnknownName, Unavailable like `count_tokens`."""
        limit: int = import_module("sglora_openclip.tokens").context_length(self.architecture)
        return limit

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Raises UnknownName for an unknown architecture, Unavailable if its tokenizer is not on this machine."""
        tokens = import_module("sglora_openclip.tokens")
        counts: list[int] = tokens.count(tokens.tokenizer_of(self.architecture), texts)
        return counts


@dataclass(frozen=True)
class Family:
    """`open_clip:ARCHITECTURE/TAG`, `open_clip:ARCHITECTURE` with --weights, `hf-hub:ORGANISATION/REPOSITORY`."""

    name: str
    summary: str
    example: str

    def member(self, name: str) -> OpenClip:
        if self.name == "open_clip":
            architecture, _, tag = name.partition("/")
        else:
            architecture, tag = f"{self.name}:{name}", ""
        return OpenClip(f"{self.name}:{name}", architecture, tag, self.summary)

    def load(self, runtime: RuntimeConfig) -> OpenClipModel:
        raise UsageError(f"backbone {self.name!r} is a family of backbones", f"pass a member, such as {self.example}")


@hookimpl
def sglora_backbones() -> list[OpenClip | Family]:
    return [
        OpenClip(
            "clip-vit-b-16",
            "ViT-B-16-quickgelu",
            "openai",
            "OpenAI's CLIP ViT-B/16 (the default)",
            hub_name="openai/clip-vit-base-patch16",
            parameters=149_620_737,
            weights_terms=(Terms("weights", "MIT", "https://github.com/openai/CLIP"),),
        ),
        Family("open_clip", "any vision transformer of open_clip", "open_clip:ViT-L-14/laion2b_s32b_b82k"),
        Family("hf-hub", "any open_clip model on the Hugging Face Hub", "hf-hub:timm/ViT-B-16-SigLIP"),
    ]
