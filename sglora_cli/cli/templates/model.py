"""A small vision transformer with random weights, and a bag-of-words text encoder.

A real model loads its weights in `ExampleModel.__init__`, preprocesses images in `stem` and encodes
texts in `encode_text`. `AttentionSites` finds q, k and v in any torch module with plain self-attention.

Shapes: N images, T adapters, C texts, L tokens, W width, D embedding, P parameters of an adapter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from sglora_cli.api import AttentionSites, Layout, content_hash
from torch import Tensor, nn

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, PATCH, WIDTH, DEPTH, EMBED, LETTERS = 32, 8, 24, 2, 16, 512


class Attention(nn.Module):
    """(N, L, W) -> (N, L, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(self.q_proj(x), self.k_proj(x), self.v_proj(x))


class Vision(nn.Module):
    """(N, 3, SIDE, SIDE) -> (N, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.place = nn.Parameter(torch.randn((SIDE // PATCH) ** 2, WIDTH))
        self.blocks = nn.ModuleList(Attention() for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, EMBED)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patches(pixels).flatten(2).mT + self.place
        for block in self.blocks:
            x = x + block(F.layer_norm(x, (WIDTH,)))
        return F.normalize(self.head(x.mean(dim=1)), dim=-1)


class ExampleModel:
    """The loaded backbone. `fingerprint` identifies its weights, because an adapter fits only these."""

    scale = 10.0
    loss_scale = 1.0
    hub_name = ""

    def __init__(self, device: torch.device) -> None:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.vision = Vision().requires_grad_(False).eval().to(device)
            self.letters = torch.randn(LETTERS, EMBED)
        self.device = device
        self.attention = AttentionSites(self.vision)
        self.sites = self.attention.sites
        self.fingerprint = content_hash(*self.vision.cpu().state_dict().values(), self.letters)[:16]
        self.vision.to(device)

    def stem(self, images: Sequence[Image]) -> Tensor:
        """Return (N, 3, SIDE, SIDE), independent of adapters. It is cached, so training reads each image once."""
        pixels = [bytearray(image.convert("RGB").resize((SIDE, SIDE)).tobytes()) for image in images]
        grids = [torch.frombuffer(one, dtype=torch.uint8).view(SIDE, SIDE, 3) for one in pixels]
        return torch.stack(grids).permute(0, 3, 1, 2) / 127.5 - 1

    def encode_image(self, stem: Tensor, layout: Layout | None = None, adapters_TP: Tensor | None = None) -> Tensor:
        """Return (N, D), or (T, N, D) for T adapters. The attached module expects T batches of images in a row."""
        x = stem.to(self.device).float()
        if layout is None or adapters_TP is None:
            encoded: Tensor = self.vision(x)
            return encoded
        x = x.expand(len(adapters_TP), *x.shape) if x.ndim == 4 else x
        with self.attention.attached(self.attention.updates(layout, adapters_TP.to(self.device))):
            adapted: Tensor = self.vision(x.flatten(0, 1))
        return adapted.unflatten(0, x.shape[:2])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return (C, D), from hashes of each text's words."""
        counts_CL = torch.zeros(len(texts), LETTERS)
        for row, text in enumerate(texts):
            for word in text.lower().split() or [""]:
                counts_CL[row, int.from_bytes(hashlib.sha256(word.encode()).digest()[:2], "big") % LETTERS] += 1
        return F.normalize(counts_CL @ self.letters, dim=-1)
