"""The starter model for the host. Its parts are loaded when they are first needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.api import (
    BadFile,
    FrozenFile,
    Layout,
    Mismatch,
    RuntimeConfig,
    Site,
    Unavailable,
    content_hash,
    drop_tokens,
    parse_tensors,
    project,
    split_projection,
)

from . import text, tokens
from .stem import Stem, features, pixels, weights_path
from .tower import DEPTH, EMBED, PROJECTION, WIDTH, Tower, site_name

if TYPE_CHECKING:
    from PIL.Image import Image

SITES = tuple(Site(site_name(block, name), WIDTH, WIDTH) for block in range(DEPTH) for name in "qkv")

EARLIER = {
    "1e4884b75d0903ed": "starter 1, the starter backbone before it was trained on Flickr8k",
}
"""Fingerprint of earlier weights -> their description."""


def load(weights: Path, runtime: RuntimeConfig) -> StarterModel:
    """Load the model. Raises Unavailable for other devices than the CPU or other precisions, which it does not use."""
    if runtime.device not in ("", "cpu", "auto"):
        raise Unavailable(f"the starter backbone runs on the CPU, not on {runtime.device!r}", "omit --device")
    if runtime.precision not in ("auto", "fp32"):
        raise Unavailable(f"the starter backbone computes in fp32, not in {runtime.precision!r}", "omit --precision")
    return StarterModel(Path(runtime.weights) if runtime.weights else weights)


class StarterModel:
    """A Model (see contracts). It loads the tower at once, the sentence encoder and the stem on first use."""

    sites = SITES
    projection = Site(PROJECTION, EMBED, 2 * WIDTH)
    device = torch.device("cpu")
    loss_scale = 1.0
    hub_name = ""

    def __init__(self, weights: Path) -> None:
        file = FrozenFile(weights)
        tensors = parse_tensors(file.read(), str(weights))
        self.tower = Tower()
        try:
            self.tower.load_state_dict(tensors)
        except RuntimeError as error:
            why, remedy = str(error).splitlines()[0].rstrip(":"), "omit --weights, or reinstall sglora"
            raise BadFile(f"{weights} does not contain starter weights: {why}", remedy) from None
        self.tower.requires_grad_(False).eval()
        self.scale = float(self.tower.log_scale.exp())
        self._tower_sha256 = file.sha256

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the bytes of all three parts, including parts that are not loaded yet."""
        return content_hash([self._tower_sha256, *(file.sha256 for file in self._frozen)])[:16]

    def earlier(self, fingerprint: str) -> str | None:
        return EARLIER.get(fingerprint)

    @cached_property
    def _frozen(self) -> tuple[FrozenFile, FrozenFile]:
        return FrozenFile(text.weights_path()), FrozenFile(weights_path())

    @cached_property
    def sentences(self) -> text.SentenceEncoder:
        return text.SentenceEncoder.pretrained(self._frozen[0])

    @cached_property
    def convolutions(self) -> Stem:
        return Stem.pretrained(self._frozen[1].read())

    def stem(self, images: Sequence[Image]) -> Tensor:
        """Return (N, 50, 192) float16, the tokens before the first block."""
        return self.stem_of([self.prepare(image) for image in images])

    def prepare(self, image: Image) -> Tensor:
        return pixels(image)

    @torch.no_grad()
    def stem_of(self, prepared: Sequence[Tensor]) -> Tensor:
        return self.tower.tokens(features(self.convolutions, prepared)).half()

    def hide(self, stem: Tensor, share: float, rng: torch.Generator) -> Tensor:
        """Drop tokens, (N, 50, W) -> (N, fewer, W). The summary token stays."""
        return drop_tokens(stem, share, 1, rng)

    def encode_image(self, stem: Tensor, layout: Layout | None = None, adapters_TP: Tensor | None = None) -> Tensor:
        x = stem.float()
        if adapters_TP is None or layout is None:
            return self.tower.images(x)
        attention, update = split_projection(layout, adapters_TP, self.projection)
        if attention is None:  # the blocks then compute the same for all adapters
            return F.normalize(project(self.tower.pooled(x), self.tower.project_image.weight, update), dim=-1)
        own, own_TP = attention
        if own.sites != self.sites:
            raise Mismatch("the adapter's sites do not match the starter backbone")
        updates = {name: (b * own.scaling, a) for name, (b, a) in own.split(own_TP).items()}
        return F.normalize(project(self.tower.pooled(x, updates), self.tower.project_image.weight, update), dim=-1)

    def projection_weight(self) -> Tensor:
        return self.tower.project_image.weight.clone()

    def unprojected(self, stem: Tensor) -> Tensor:
        """Return (N, 2 W), the summary token and the mean of the others, after the last norm."""
        return self.tower.pooled(stem.float())

    def check_text(self, sentence: str) -> None:
        (n,) = tokens.count([sentence])
        if n > tokens.MAX_TOKENS:
            raise Mismatch(f"the sentence has {n} tokens, the limit is {tokens.MAX_TOKENS}", "shorten it")

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        result: Tensor = self.tower.texts(self.encode_meaning(texts))
        return result

    def encode_meaning(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors of the frozen sentence encoder: (C, 384)."""
        return self._sentence_vectors(tuple(texts))

    @lru_cache(maxsize=1)  # the meaning of a sentence is requested right after its embedding
    def _sentence_vectors(self, texts: tuple[str, ...]) -> Tensor:
        return self.sentences(texts)
