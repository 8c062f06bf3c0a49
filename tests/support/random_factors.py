"""Random factors of updates B A, the same at every call."""

from __future__ import annotations

import torch


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def factors(*shape: int, rank: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    *batch, out, into = shape
    return (
        torch.randn(*batch, out, rank, generator=seeded(seed)),
        torch.randn(*batch, rank, into, generator=seeded(seed + 1)),
    )
