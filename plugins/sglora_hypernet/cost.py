"""Estimate the cost of training a hypernetwork: its size by counting, its time by running a step of its last layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from sglora_cli.api import Layout, step_seconds

from . import EXPERTS, PROJECTION, HyperConfig, ReconstructionConfig


def cost(layout: Layout, config: HyperConfig | ReconstructionConfig) -> dict[str, Any]:
    """Estimate parameters, peak bytes, seconds without the backbone, and passes through it.

    The width of an embedding is unknown here. The estimate uses the encoder's width, also for both sides of the
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
    # The last layer dominates the cost. It is timed with inputs of its real width.
    seen_BH = torch.zeros(adapters, config.hidden or width)
    make = partial(nn.Linear, seen_BH.shape[1], bias=False)
    step = step_seconds(make, size, lambda last: last(seen_BH).square().mean())
    # Weights, gradients and Adam's two moments; several copies of the adapters of a step.
    numbers = 4 * parameters + 6 * adapters * size
    return {"parameters": parameters, "bytes": 4 * numbers, "seconds": config.steps * step, "passes": passes}
