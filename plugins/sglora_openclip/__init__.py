"""Backbones of open_clip: CLIP ViT-B/16 (the default) and every other vision transformer it knows.

model.py     a model as the host sees it             tower.py   the visual encoder with T adapters at once
text.py      the text encoder, without open_clip     tokens.py  tokens of a text, counted without weights
loading.py   a model from a file, cache or hub       stored.py  what is known of files while they are the same
weights.py   weights from files, and their checks    hub.py     weights from open_clip's cache or hub
parts.py     parts of open_clip without the rest
beside.py    what the files beside weights say       said.py    a value, and the file and key that say it
processor.py transformers' way to prepare photos     names.py   transformers' names for open_clip's tensors
agreement.py whether files, tag and architecture agree

A sentence needs no more than the text encoder's tensors and a tokenizer: open_clip itself, whose import takes longer
than an adapter, is imported for the first photo, and to find out what is not known of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.api import RuntimeConfig, Terms, UsageError, hookimpl

if TYPE_CHECKING:
    from .model import OpenClipModel

SGLORA_API = "1.0"


@dataclass(frozen=True)
class OpenClip:
    """One architecture of open_clip, and the tag its weights have there ("" if they must come from a file)."""

    name: str
    architecture: str
    tag: str
    summary: str
    hub_name: str = ""
    """What transformers and PEFT call the same weights."""
    parameters: int = 0
    """How many the model has, four bytes each where they are downloaded; 0 if that is unknown."""
    weights_terms: tuple[Terms, ...] = ()

    def load(self, runtime: RuntimeConfig) -> OpenClipModel:
        """Raises UnknownName for an architecture or tag open_clip lacks, Unavailable without weights, and
        Mismatch, BadFile for weights that do not fit."""
        model: OpenClipModel = import_module("sglora_openclip.loading").load(self, runtime)
        return model

    def absent(self, runtime: RuntimeConfig) -> str:
        """Which weights are not on this machine; "" if they are."""
        if runtime.weights:
            return "" if Path(runtime.weights).expanduser().exists() else f"{runtime.weights} is not there"
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
        """Raises UnknownName, Unavailable as `count_tokens`."""
        limit: int = import_module("sglora_openclip.tokens").context_length(self.architecture)
        return limit

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Raises UnknownName for an architecture open_clip lacks, Unavailable if its tokenizer is not here."""
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
        raise UsageError(f"backbone {self.name!r} is a family", f"name a member, as in {self.example}")


@hookimpl
def sglora_backbones() -> list[OpenClip | Family]:
    return [
        OpenClip(
            "clip-vit-b-16",
            "ViT-B-16-quickgelu",
            "openai",
            "CLIP ViT-B/16 of OpenAI: the default",
            hub_name="openai/clip-vit-base-patch16",
            parameters=149_620_737,
            weights_terms=(Terms("weights", "MIT", "https://github.com/openai/CLIP"),),
        ),
        Family("open_clip", "any vision transformer of open_clip", "open_clip:ViT-L-14/laion2b_s32b_b82k"),
        Family("hf-hub", "an open_clip model of the Hugging Face hub", "hf-hub:timm/ViT-B-16-SigLIP"),
    ]
