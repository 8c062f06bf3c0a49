"""Shared time and memory estimates for fits that learn from saved states, measured by running a small part of each.

Shapes: P parameters of an adapter, R coordinates.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from sglora_cli.lora.coordinates import BLOCK, span

N = TypeVar("N", bound=nn.Module)

_TRIAL = 20_000_000
"""Parameters of the largest network that is timed. The time of a step is proportional to its parameters."""
_COLUMNS = 16_384
"""Numbers of an adapter used to time reading and the span search. Their time is proportional to this."""


def parameters_of(make: Callable[[int], nn.Module], width: int) -> int:
    """Count the parameters of the network make(width) without allocating it."""
    with torch.device("meta"):
        return sum(p.numel() for p in make(width).parameters())


def step_seconds(make: Callable[[int], N], width: int, loss: Callable[[N], Tensor], device: str = "cpu") -> float:
    """Return the seconds of one AdamW step on a scalar loss. The first step is slow and therefore not counted.

    For a network too large to try, a narrower one is timed and scaled up.
    """
    parameters = parameters_of(make, width)
    narrow = max(1, min(width, width * _TRIAL // parameters))
    with torch.random.fork_rng():
        network = make(narrow).to(device)
    optimiser = torch.optim.AdamW(network.parameters())
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        optimiser.zero_grad()
        loss(network).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 100.0)
        optimiser.step()
        float(next(network.parameters()).detach().flatten()[0])  # waits for the device
        seconds = time.monotonic() - began
    return seconds * parameters / parameters_of(make, narrow)


def reading_seconds(size: int, count: int) -> float:
    """Estimate the seconds to read, scale and sum `count` states once."""
    columns = min(size, _COLUMNS)
    block_BP, unit_P = torch.ones(BLOCK, columns), torch.ones(columns)
    began = time.monotonic()
    x_BP = (block_BP.clone() - unit_P) / unit_P  # data read from disk is copied at least once
    _ = x_BP.sum(dim=0).double() + (x_BP**2).sum(dim=0).double()
    return (time.monotonic() - began) * size / columns * -(-count // BLOCK)


def projection_cost(size: int, rank: int, count: int) -> tuple[int, float, int]:
    """Estimate numbers in memory, seconds, and file bytes for `rank` coordinates of `count` states.

    The seconds cover the span search, the coordinates, and the part outside the span.
    """
    # Current directions plus a block, several times during the rotation; the basis; R coordinates of each state.
    numbers = size * (5 * (rank + 2 * BLOCK) + rank) + count * rank
    blocks = -(-count // BLOCK)
    seconds = (_span(size, rank) + _coordinates(size, rank)) * blocks + 2 * reading_seconds(size, count)
    return numbers, seconds, 2 * rank * size


def _coordinates(size: int, rank: int) -> float:
    """Estimate the seconds for one block's coordinates, which networks train on, and its part outside the span."""
    columns = min(size, _COLUMNS)
    block_BP, basis_RP = torch.ones(BLOCK, columns), torch.ones(rank, columns)
    began = time.monotonic()
    _ = block_BP @ basis_RP.T
    outside_BP = block_BP - (block_BP @ basis_RP.T) @ basis_RP
    _ = outside_BP.double().square().sum()
    return (time.monotonic() - began) * size / columns


def _span(size: int, rank: int) -> float:
    """Estimate the seconds that one block of states adds to the span search."""
    rng, columns = torch.Generator().manual_seed(0), min(size, _COLUMNS)
    blocks = [torch.randn(rows, columns, generator=rng) for rows in (rank + BLOCK, BLOCK)]
    began = time.monotonic()
    span(blocks[:1], rank + BLOCK)
    middle = time.monotonic()
    span(blocks, rank + BLOCK)
    return max(0.0, time.monotonic() - middle - (middle - began)) * size / columns
