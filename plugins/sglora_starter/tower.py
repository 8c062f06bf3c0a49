"""The trained part of the starter: a small vision transformer and two projections.

Shapes: T adapters, N images, F features, L = 49 tokens, W width, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .stem import FEATURES, GRID
from .text import WIDTH as TEXT_WIDTH

WIDTH, DEPTH, HEADS, EMBED = 192, 4, 6, 256
TOKENS = GRID * GRID

Update = tuple[Tensor, Tensor]
"""The LoRA update of one site for T models: (B (T, out, r), A (T, r, in)), with the scaling included in B."""


class Attention(nn.Module):
    """Multi-head self-attention with LoRA sites q, k and v."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, WIDTH)
        self.k = nn.Linear(WIDTH, WIDTH)
        self.v = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, updates: Mapping[str, Update] | None = None) -> Tensor:
        """(..., L, W) -> (..., L, W). With updates: (T, N, L, W), or shared (N, L, W), -> (T, N, L, W)."""
        q, k, v = self.q(x), self.k(x), self.v(x)
        if updates:
            q, k, v = (y + low_rank(x, *updates[name]) for name, y in (("q", q), ("k", k), ("v", v)))
        q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(-2, -3) for y in (q, k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2))


def low_rank(x: Tensor, b_TOR: Tensor, a_TRI: Tensor) -> Tensor:
    """Compute B A x for T models: (T, N, L, in), or shared (N, L, in), -> (T, N, L, out)."""
    rows = x.flatten(-3, -2)
    return (rows @ a_TRI.mT @ b_TOR.mT).unflatten(1, x.shape[-3:-1])


class Block(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 3 * WIDTH), nn.GELU(), nn.Linear(3 * WIDTH, WIDTH))

    def forward(self, x: Tensor, updates: Mapping[str, Update] | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), updates))
        y: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return y


class Tower(nn.Module):
    """Maps features to tokens, blocks and unit vectors, and sentence vectors to unit vectors."""

    mean: Tensor
    spread: Tensor

    def __init__(self, dropout: float = 0.0) -> None:
        """dropout: applied to every residual branch in training."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("spread", torch.ones(FEATURES))
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.positions = nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.02)
        self.summary = nn.Parameter(torch.randn(1, WIDTH) * 0.02)
        self.blocks = nn.ModuleList(Block(dropout) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(2 * WIDTH)
        self.project_image = nn.Linear(2 * WIDTH, EMBED, bias=False)
        self.project_text = nn.Linear(TEXT_WIDTH, EMBED)
        self.log_scale = nn.Parameter(torch.tensor(2.7))

    def tokens(self, features_NF77: Tensor) -> Tensor:
        """(N, F, 7, 7) -> (N, 1 + L, W), the part before the first site."""
        rows = features_NF77.flatten(2).mT.float()
        x = self.embed((rows - self.mean) / self.spread) + self.positions
        return torch.cat([self.summary.expand(len(x), 1, -1), x], dim=1)

    def pooled(self, x: Tensor, updates: Mapping[str, Update] | None = None) -> Tensor:
        """Compute the input of `project_image`: (N, 1 + L, W) -> (N, 2 W).

        With updates: (T, N, 1 + L, W), or shared (N, 1 + L, W), -> (T, N, 2 W). With a shared input, the frozen q, k
        and v of the first block are computed once.
        """
        for i, block in enumerate(self.blocks):
            own = {name: updates[site_name(i, name)] for name in "qkv"} if updates else None
            x = block(x, own)
        pooled: Tensor = self.norm(torch.cat([x[..., 0, :], x[..., 1:, :].mean(dim=-2)], dim=-1))
        return pooled

    def images(self, x: Tensor) -> Tensor:
        """(N, 1 + L, W) -> (N, D)."""
        return F.normalize(self.project_image(self.pooled(x)), dim=-1)

    def texts(self, sentences_CW: Tensor) -> Tensor:
        """(C, 384) -> (C, D)."""
        return F.normalize(self.project_text(sentences_CW), dim=-1)


def site_name(block: int, name: str) -> str:
    """Return the name of a site, such as `visual.blocks.3.q`."""
    return f"visual.blocks.{block}.{name}"


PROJECTION = "visual.project_image"
"""The name of the optional last site."""
