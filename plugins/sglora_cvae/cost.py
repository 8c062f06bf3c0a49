"""Estimate the cost of training a CVAE: its size by counting, its time by running two steps of a smaller one."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from sglora_cli.api import parameters_of, projection_cost, reading_seconds, step_seconds

from . import CvaeConfig
from .condition import VARIANTS
from .network import Network


def cost(
    size: int, tasks: int, states: int, config: CvaeConfig, embedding: int = 0, told: bool = True, device: str = "cpu"
) -> dict[str, Any]:
    """Estimate parameters, peak bytes, seconds and file size of a fit to adapters of `size` numbers on `device`.

    `embedding` is the width of d* if it is part of the condition, otherwise 0. `told` is whether {mu*, sigma*^2} is.
    """
    seen, count = min(config.projection, size) or size, tasks * states
    width = 2 * seen * told + embedding
    shown = tasks * (1 + VARIANTS if config.leave_out else 1)  # conditions
    make = partial(_network, seen, config.latent, width)
    parameters = parameters_of(make, config.hidden)
    # Weights, gradients and Adam's two moments; conditions of all tasks; several copies of a batch.
    learning = 4 * parameters + width * shown + 8 * (seen + width) * min(config.batch, count)
    apart = torch.device(device).type != "cpu"
    numbers = parameters + width * shown if apart else learning
    rows = [torch.zeros(config.batch, columns).to(device) for columns in (seen, width, config.latent)]
    step = step_seconds(make, config.hidden, partial(_loss, rows), device)
    seconds = config.epochs * -(-count // config.batch) * step
    # Errors are measured at the end. Without a projection, every epoch also reads all parameters.
    readings = (1 if config.projection else config.epochs + 1) + (config.common == "training")
    seconds += reading_seconds(size, count) * readings
    centred = width if config.common == "training" else embedding * told
    stored = 2 * parameters_of(partial(_kept, make), config.hidden) + 8 * size + 4 * centred
    if config.projection:
        own = projection_cost(size, seen, count)
        numbers, seconds, stored = numbers + own[0], seconds + own[1], stored + own[2]
    needs = {"parameters": parameters, "bytes": 4 * numbers, "seconds": seconds, "stored_bytes": stored}
    return {**needs, "device_bytes": 4 * learning} if apart else needs


def _network(size: int, latent: int, width: int, hidden: int) -> Network:
    return Network(size, hidden, latent, width)


def _kept(make: partial[Network], hidden: int) -> Network:
    """Return the network without its encoder, which is only needed for training."""
    network = make(hidden)
    del network.encoder
    return network


def _loss(rows: list[Tensor], network: Network) -> Tensor:
    error_B, kl_B = network(*rows)
    return (error_B + kl_B).mean()
