"""What training a CVAE will need: its size by counting, its time by trying two steps of a smaller one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from . import CvaeConfig
from .network import Network

_TRIAL = 20_000_000
"""Parameters of the one that is tried: a step's time goes with them."""


def cost(size: int, tasks: int, states: int, config: CvaeConfig) -> dict[str, Any]:
    """Parameters, peak bytes and seconds of a fit to adapters of `size` numbers, on this machine's CPU."""
    parameters = _parameters(size, config)
    # Weights, their gradients and Adam's two moments; conditions of all tasks; a batch's numbers, a few times over.
    numbers = 4 * parameters + 2 * size * tasks + 8 * 3 * size * min(config.batch, tasks * states)
    steps = config.epochs * -(-tasks * states // config.batch)
    smaller = replace(config, hidden=max(1, min(config.hidden, config.hidden * _TRIAL // parameters)))
    seconds = _step(size, smaller) * parameters / _parameters(size, smaller)
    return {"parameters": parameters, "bytes": 4 * numbers, "seconds": steps * seconds}


def _parameters(size: int, config: CvaeConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Network(size, config.hidden, config.latent).parameters())


def _step(size: int, config: CvaeConfig) -> float:
    """Seconds of one step, the first one, which is slow, left out."""
    with torch.random.fork_rng():
        network = Network(size, config.hidden, config.latent)
    optimiser = torch.optim.AdamW(network.parameters())
    x_BP, c_BC, noise_BZ = (torch.zeros(config.batch, width) for width in (size, 2 * size, config.latent))
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        error_B, kl_B = network(x_BP, c_BC, noise_BZ)
        optimiser.zero_grad()
        (error_B + kl_B).mean().backward()
        optimiser.step()
        seconds = time.monotonic() - began
    return seconds
