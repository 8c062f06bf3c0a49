"""Random factors of updates B A, the same at every call, and updates as they are without factors."""

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


def dense_update(layout, flat_P) -> torch.Tensor:
    """All updates of an adapter, s B A, behind one another."""
    return torch.cat([(layout.scaling * b @ a).double().flatten() for b, a in layout.split(flat_P).values()])
