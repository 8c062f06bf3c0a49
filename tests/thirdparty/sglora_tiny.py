"""A stranger's backbone on one screen: photos as 4 x 4 colours, sentences as bags of letters."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F

from sglora_cli.api import Site, hookimpl

WIDTH, EMBED = 12, 8


class TinyModel:
    fingerprint = "tiny-1"
    scale = 10.0
    loss_scale = 1.0
    hub_name = ""
    device = torch.device("cpu")
    sites = tuple(Site(f"layers.{i}.{name}", WIDTH, WIDTH) for i in range(2) for name in "qkv")

    def __init__(self):
        rng = torch.Generator().manual_seed(7)
        self.weights = {s.name: torch.randn(WIDTH, WIDTH, generator=rng) / WIDTH**0.5 for s in self.sites}
        self.head = torch.randn(EMBED, WIDTH, generator=rng)
        self.letters = torch.randn(EMBED, 256, generator=rng)

    def stem(self, images):
        import numpy

        grids = [numpy.array(image.resize((4, 4))).reshape(4, 12) / 255 for image in images]
        return torch.tensor(numpy.stack(grids)).half()

    def encode_image(self, stem, layout=None, adapters_TP=None):
        x = stem.float()
        parts = {} if adapters_TP is None else layout.split(adapters_TP)
        if adapters_TP is not None and x.ndim == 3:
            x = x.expand(len(adapters_TP), *x.shape)
        for i in range(2):
            q, k, v = (self._site(x, f"layers.{i}.{name}", parts, layout) for name in "qkv")
            x = x + torch.softmax(q @ k.mT / WIDTH**0.5, dim=-1) @ v
        return F.normalize(x.mean(dim=-2) @ self.head.T, dim=-1)

    def _site(self, x, name, parts, layout):
        y = x @ self.weights[name].T
        if name in parts:
            b_TOR, a_TRI = parts[name]
            y = y + layout.scaling * (x.flatten(1, -2) @ a_TRI.mT @ b_TOR.mT).view_as(y)
        return y

    def encode_text(self, texts):
        counts = torch.zeros(len(texts), 256)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                counts[row, hashlib.sha256(word.encode()).digest()[0]] += 1
        return F.normalize(counts @ self.letters.T, dim=-1)


class TinyBackbone:
    name = "tiny"
    summary = "a stranger's backbone"

    def load(self, runtime):
        return TinyModel()


SGLORA_API = "1.0"


@hookimpl
def sglora_backbones():
    return [TinyBackbone()]
