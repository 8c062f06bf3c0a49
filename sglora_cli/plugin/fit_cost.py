"""What fits that learn from saved states have in common in time and memory, measured by trying a small part of each.

Shapes: P numbers of an adapter, R coordinates.
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
"""Parameters of the network that is tried: a step's time goes with them."""
_COLUMNS = 16_384
"""Numbers of an adapter when reading and the search for a span are tried: their time goes with them."""


def parameters_of(make: Callable[[int], nn.Module], width: int) -> int:
    """Of the network that make(width) gives, without its memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in make(width).parameters())


def step_seconds(make: Callable[[int], N], width: int, loss: Callable[[N], Tensor], device: str = "cpu") -> float:
    """Seconds of one step of AdamW on a scalar loss, the first one, which is slow, left out.

    Of a network too large to be tried, a narrower one is.
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
    """Seconds that `count` states take to be read, scaled and summed up once."""
    columns = min(size, _COLUMNS)
    block_BP, unit_P = torch.ones(BLOCK, columns), torch.ones(columns)
    began = time.monotonic()
    x_BP = (block_BP.clone() - unit_P) / unit_P  # what is read from disk is copied at least once
    _ = x_BP.sum(dim=0).double() + (x_BP**2).sum(dim=0).double()
    return (time.monotonic() - began) * size / columns * -(-count // BLOCK)


def projection_cost(size: int, rank: int, count: int) -> tuple[int, float, int]:
    """Of `rank` coordinates of `count` states: numbers in memory, seconds, and bytes of the file.

    Seconds are those of the search for the span, of the coordinates, and of what lies outside of it.
    """
    # Directions so far with a block, a few times over while they are turned; the basis; a state's R coordinates.
    numbers = size * (5 * (rank + 2 * BLOCK) + rank) + count * rank
    blocks = -(-count // BLOCK)
    seconds = (_span(size, rank) + _coordinates(size, rank)) * blocks + 2 * reading_seconds(size, count)
    return numbers, seconds, 2 * rank * size


def _coordinates(size: int, rank: int) -> float:
    """Seconds for a block's coordinates, which the networks learn on, and at the end for what lies outside of them."""
    columns = min(size, _COLUMNS)
    block_BP, basis_RP = torch.ones(BLOCK, columns), torch.ones(rank, columns)
    began = time.monotonic()
    _ = block_BP @ basis_RP.T
    outside_BP = block_BP - (block_BP @ basis_RP.T) @ basis_RP
    _ = outside_BP.double().square().sum()
    return (time.monotonic() - began) * size / columns


def _span(size: int, rank: int) -> float:
    """Seconds that one block of states adds to the search for their span."""
    rng, columns = torch.Generator().manual_seed(0), min(size, _COLUMNS)
    blocks = [torch.randn(rows, columns, generator=rng) for rows in (rank + BLOCK, BLOCK)]
    began = time.monotonic()
    span(blocks[:1], rank + BLOCK)
    middle = time.monotonic()
    span(blocks, rank + BLOCK)
    return max(0.0, time.monotonic() - middle - (middle - began)) * size / columns
