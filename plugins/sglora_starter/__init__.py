"""The starter backbone, which is small, bundled and works offline.

stem.py    frozen convolutions      text.py    frozen sentence encoder    tokens.py its tokens
tower.py   the trained part         model.py   the complete model for the host
corpus.py  training photos          colours.py colour names from pixels
features.py cached features from the frozen parts                       train.py  the training
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.api import RuntimeConfig, hookimpl

if TYPE_CHECKING:
    from .model import StarterModel

SGLORA_API = "1.0"

WEIGHTS = Path(__file__).parent / "starter.safetensors"


class StarterBackbone:
    """The bundled backbone. `weights` is the file of its trained part."""

    name = "starter"
    summary = "small bundled image-text model that runs offline on any machine"

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self.weights = weights

    def load(self, runtime: RuntimeConfig) -> StarterModel:
        model: StarterModel = import_module("sglora_starter.model").load(self.weights, runtime)
        return model

    def token_limit(self) -> int:
        limit: int = import_module("sglora_starter.tokens").MAX_TOKENS
        return limit

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Raises Unavailable if the sentence encoder's package is missing."""
        counts: list[int] = import_module("sglora_starter.tokens").count(texts)
        return counts


@hookimpl
def sglora_backbones() -> list[StarterBackbone]:
    return [StarterBackbone()]
