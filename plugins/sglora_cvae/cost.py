"""What training a CVAE will need: its size by counting, its time by trying two steps of a smaller one."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from sglora_cli.api import parameters_of, projection_cost, reading_seconds, step_seconds

from . import CvaeConfig
from .network import Network


def cost(size: int, tasks: int, states: int, config: CvaeConfig, width: int = 0, device: str = "cpu") -> dict[str, Any]:
    """Parameters, peak bytes, seconds and the file's bytes of a fit to adapters of `size` numbers, the networks on
    `device`. `width` is the condition's; 0: that of {mu*, sigma*^2}."""
    seen, count = min(config.projection, size) or size, tasks * states
    width = width or 2 * seen
    make = partial(_network, seen, config.latent, width)
    parameters = parameters_of(make, config.hidden)
    # Weights, their gradients and Adam's two moments; conditions of all tasks; a batch's numbers, a few times over.
    learning = 4 * parameters + width * tasks + 8 * (seen + width) * min(config.batch, count)
    apart = torch.device(device).type != "cpu"
    numbers = parameters + width * tasks if apart else learning
    rows = [torch.zeros(config.batch, columns).to(device) for columns in (seen, width, config.latent)]
    seconds = (
        config.epochs * -(-count // config.batch) * step_seconds(make, config.hidden, partial(_loss, rows), device)
    )
    # Errors are measured at the end; without a projection every epoch reads all numbers, too.
    seconds += reading_seconds(size, count) * (1 if config.projection else config.epochs + 1)
    stored = 2 * parameters_of(partial(_kept, make), config.hidden) + 8 * size
    if config.projection:
        own = projection_cost(size, seen, count)
        numbers, seconds, stored = numbers + own[0], seconds + own[1], stored + own[2]
    needs = {"parameters": parameters, "bytes": 4 * numbers, "seconds": seconds, "stored_bytes": stored}
    return {**needs, "device_bytes": 4 * learning} if apart else needs


def _network(size: int, latent: int, width: int, hidden: int) -> Network:
    return Network(size, hidden, latent, width)


def _kept(make: partial[Network], hidden: int) -> Network:
    """Without the encoder, which is needed for training only."""
    network = make(hidden)
    del network.encoder
    return network


def _loss(rows: list[Tensor], network: Network) -> Tensor:
    error_B, kl_B = network(*rows)
    return (error_B + kl_B).mean()
