"""Estimate the cost of training a flow: its size by counting, its time by running two steps of it or a narrower one."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from sglora_cli.api import Layout, parameters_of, projection_cost, reading_seconds, step_seconds

from .config import EMBEDDING, NONE, FlowConfig
from .network import Network


def cost(layout: Layout, tasks: int, states: int, config: FlowConfig, device: str) -> dict[str, Any]:
    """Estimate parameters, peak bytes, seconds and file size of a fit with the network on `device`."""
    count, rank = tasks * states, min(config.projection, layout.size)
    # The width of an embedding is unknown here. The encoder's width is used instead.
    told = {NONE: 0, EMBEDDING: max(site.in_features for site in layout.sites)}.get(config.condition, 2 * rank)

    def make(width: int) -> Network:
        return Network(rank, told, width, config.blocks)

    rows = [torch.zeros(config.batch, columns).to(device) for columns in (rank, told)]
    parameters = parameters_of(make, config.width)
    seconds = config.epochs * -(-count // config.batch) * step_seconds(make, config.width, partial(_loss, rows), device)
    numbers, reading, stored = projection_cost(layout.size, rank, count)
    seconds += reading + reading_seconds(layout.size, count)
    # Weights, gradients and Adam's two moments; coordinates and conditions of all states; a batch in every layer.
    hidden = (4 + 9 * config.blocks) * config.width + 4 * rank + told
    learning = 4 * parameters + count * rank + told * tasks + 2 * hidden * min(config.batch, count)
    needs = {"parameters": parameters, "seconds": seconds}
    needs["stored_bytes"] = 2 * parameters + stored + 8 * layout.size + 8 * rank + 4 * told
    if torch.device(device).type != "cpu":
        return {**needs, "bytes": 4 * (numbers + parameters), "device_bytes": 4 * learning}
    return {**needs, "bytes": 4 * (numbers + learning)}


def _loss(rows: list[Tensor], network: Network) -> Tensor:
    x_BR, c_BC = rows
    said_BR: Tensor = network(x_BR, x_BR.new_zeros(len(x_BR)), c_BC)
    return said_BR.square().mean()
