"""What training a hypernetwork will need: its size by counting, its time by a step of a smaller optimiser."""

from __future__ import annotations

import time
from typing import Any

import torch

from sglora_cli.api import Layout

from . import EXPERTS, PROJECTION, HyperConfig, ReconstructionConfig

_TRIAL = 4_000_000
"""Parameters that are tried: a step's time goes with them."""


def cost(layout: Layout, config: HyperConfig | ReconstructionConfig) -> dict[str, Any]:
    """Parameters, peak bytes, seconds without the backbone, and passes through it.

    How wide an embedding is the layout does not say: the encoder's width stands for it, and for both sides of the
    projection.
    """
    width = max(site.in_features for site in layout.sites)
    size, passes, adapters = layout.size, 0, 1
    if isinstance(config, HyperConfig):
        size = size // layout.rank * config.rank if config.sites != PROJECTION else 0
        size += 2 * width * config.rank if config.sites != EXPERTS else 0
        passes = config.steps * config.tasks * config.photos if config.sites != PROJECTION else 0
        adapters = config.tasks
    else:
        adapters = config.batch
    parameters = size * (1 + (config.hidden or width)) + config.hidden * (width + 1)
    return {
        "parameters": parameters,
        "bytes": 4
        * (4 * parameters + 6 * adapters * size),  # weights, gradients, Adam's two moments; a step's adapters
        "seconds": config.steps * _step(parameters),
        "passes": passes,
    }


def _step(parameters: int) -> float:
    """Seconds of an optimiser's step, the first one, which is slow, left out."""
    probe = torch.zeros(min(parameters, _TRIAL), requires_grad=True)
    optimiser = torch.optim.AdamW([probe])
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        probe.grad = torch.zeros_like(probe)
        optimiser.step()
        seconds = time.monotonic() - began
    return seconds * parameters / len(probe)
