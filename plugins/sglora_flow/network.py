"""The network that learns the direction of a path: an MLP of residual blocks conditioned on time and condition.

Its blocks are those of diffusion transformers (Peebles and Xie 2023, adaLN-Zero) without attention. They are scaled and
shifted by the condition, and are zero at the start of training. They are not normalised, because normalisation would
hide how far a point is from the centre of the noise, where sampling at temperature 0 starts.

Shapes: B rows, R coordinates, C of the condition, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TIMES = 64
"""Size of the time encoding by sines and cosines (Vaswani et al. 2017)."""


def time_numbers(time_B: Tensor) -> Tensor:
    """Encode times in [0, 1] as (B, TIMES), with the frequencies for steps up to 1000."""
    rate_F = torch.exp(-math.log(10_000.0) * torch.arange(TIMES // 2, device=time_B.device) / (TIMES // 2))
    angle_BF = 1000 * time_B[:, None] * rate_F
    return torch.cat([angle_BF.sin(), angle_BF.cos()], dim=1)


class Block(nn.Module):
    """x + gate(h) * MLP(x * (1 + scale(h)) + shift(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.told = nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)

    def forward(self, x_BW: Tensor, h_BW: Tensor) -> Tensor:
        scale_BW, shift_BW, gate_BW = self.told(h_BW).chunk(3, dim=1)
        return x_BW + gate_BW * self.mlp(x_BW * (1 + scale_BW) + shift_BW)


class Network(nn.Module):
    """(points (B, R), times (B,), conditions (B, C)) -> (B, R). C may be 0."""

    def __init__(self, size: int, condition: int, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Linear(size, width)
        self.time = nn.Sequential(nn.Linear(TIMES, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Linear(condition, width) if condition else None
        self.nothing = nn.Parameter(torch.zeros(width))
        """Replaces a condition that is left out."""
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.leave = nn.Linear(width, size)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x_BR: Tensor, time_B: Tensor, c_BC: Tensor, dropped_B: Tensor | None = None) -> Tensor:
        """Predict the direction. dropped_B: rows whose condition is left out, or None for no rows."""
        told_BW = self.nothing if self.condition is None else self.condition(c_BC)
        if dropped_B is not None:
            told_BW = torch.where(dropped_B[:, None], self.nothing, told_BW)
        h_BW = nn.functional.silu(self.time(time_numbers(time_B)) + told_BW)
        x_BW = self.enter(x_BR)
        for block in self.blocks:
            x_BW = block(x_BW, h_BW)
        return self.leave(x_BW)
