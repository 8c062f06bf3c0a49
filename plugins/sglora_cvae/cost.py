"""What training a CVAE will need: its size by counting, its time by trying two steps of a smaller one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from . import CvaeConfig
from .condition import VARIANTS
from .network import Network
from .scaling import BLOCK, span

_TRIAL = 20_000_000
"""Parameters of the one that is tried: a step's time goes with them."""
_COLUMNS = 16_384
"""Numbers of an adapter when the search for a span is tried: its time goes with them."""


def cost(
    size: int, tasks: int, states: int, config: CvaeConfig, embedding: int = 0, told: bool = True, device: str = "cpu"
) -> dict[str, Any]:
    """Parameters, peak bytes, seconds and the file's bytes of a fit to adapters of `size` numbers, the networks on
    `device`. `embedding`: the width of d* where the condition has it, else 0; `told`: whether it has {mu*, sigma*^2}.
    """
    seen = min(config.projection, size) or size
    width = 2 * seen * told + embedding
    shown = tasks * (1 + VARIANTS if config.leave_out else 1)  # conditions
    parameters = _parameters(seen, config, width)
    # Weights, their gradients and Adam's two moments; conditions of all tasks; a batch's numbers, a few times over.
    learning = 4 * parameters + width * shown + 8 * (seen + width) * min(config.batch, tasks * states)
    apart = torch.device(device).type != "cpu"
    numbers = parameters + width * shown if apart else learning
    blocks = -(-tasks * states // BLOCK)
    seconds = config.epochs * -(-tasks * states // config.batch) * _step_of(seen, width, config, parameters, device)
    # Errors are measured at the end; without a projection every epoch reads all numbers, too.
    readings = (1 if config.projection else config.epochs + 1) + (config.common == "training")
    seconds += _numbers(size) * blocks * readings
    centred = width if config.common == "training" else embedding * told
    stored = 2 * _parameters(seen, config, width, stored=True) + 8 * size + 4 * centred
    if config.projection:
        # Directions so far with a block, a few times over while they are turned; the basis; a state's R coordinates.
        numbers += size * (5 * (seen + 2 * BLOCK) + seen) + tasks * states * seen
        seconds += (_span(size, seen) + 2 * _numbers(size) + _coordinates(size, seen)) * blocks
        seconds += _coordinates(size, seen) * shown / BLOCK
        stored += 2 * seen * size
    needs = {"parameters": parameters, "bytes": 4 * numbers, "seconds": seconds, "stored_bytes": stored}
    return {**needs, "device_bytes": 4 * learning} if apart else needs


def _parameters(size: int, config: CvaeConfig, width: int, stored: bool = False) -> int:
    """All of them, or those that are stored: the encoder is needed for training only."""
    with torch.device("meta"):
        network = Network(size, config.hidden, config.latent, width)
    if stored:
        del network.encoder
    return sum(p.numel() for p in network.parameters())


def _step_of(size: int, width: int, config: CvaeConfig, parameters: int, device: str) -> float:
    smaller = replace(config, hidden=max(1, min(config.hidden, config.hidden * _TRIAL // parameters)))
    return _step(size, width, smaller, device) * parameters / _parameters(size, smaller, width)


def _step(size: int, width: int, config: CvaeConfig, device: str) -> float:
    """Seconds of one step, the first one, which is slow, left out."""
    with torch.random.fork_rng():
        network = Network(size, config.hidden, config.latent, width).to(device)
    optimiser = torch.optim.AdamW(network.parameters())
    rows = [torch.zeros(config.batch, columns) for columns in (size, width, config.latent)]
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        error_B, kl_B = network(*(row.to(device) for row in rows))
        optimiser.zero_grad()
        (error_B + kl_B).mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 100.0)
        optimiser.step()
        float(next(network.parameters()).detach()[0, 0])  # waits for the device
        seconds = time.monotonic() - began
    return seconds


def _numbers(size: int) -> float:
    """Seconds that a block of states takes to be read, scaled and summed up."""
    columns = min(size, _COLUMNS)
    block_BP, unit_P = torch.ones(BLOCK, columns), torch.ones(columns)
    began = time.monotonic()
    x_BP = (block_BP.clone() - unit_P) / unit_P  # what is read from disk is copied at least once
    _ = x_BP.sum(dim=0).double() + (x_BP**2).sum(dim=0).double()
    return (time.monotonic() - began) * size / columns


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
