"""What training a mixture will need: its size by counting, its time by trying one product of matrices.

Neither the layout nor a recipe's table says how many experts, tokens or numbers of an embedding there are. As many
experts as training tasks are taken, as in the packs that come with sglora; tokens a quarter of the encoder's width
(ViT-B/16: 197 of 768); an embedding as wide as the encoder. Where that is wrong, the order of magnitude is right.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from sglora_cli.api import Layout

from . import MixtureConfig, MoleConfig, RarConfig

K = 4
"""Of the sentence's prior, unless a recipe says otherwise."""
_KEPT = 16
"""Numbers a token and a number of width that a transformer's block keeps for its gradient."""


def cost(layout: Layout, tasks: int, config: MixtureConfig, device: str = "cpu") -> dict[str, Any]:
    """Parameters, peak bytes, seconds and the file's bytes of a fit; "device_bytes" where not all is on the CPU."""
    width, sites, experts = layout.sites[0].in_features, len(layout.sites), max(2, tasks)
    if isinstance(config, MoleConfig):
        parameters, sketch, mixed = sites * (experts * (width + 1) + 1), width, experts
    else:
        assert isinstance(config, RarConfig)
        seen, hidden = 2 * config.sketch**2 + 4, config.hidden
        parameters = hidden * (seen + sites + hidden + 3) + 1
        sketch, mixed = experts * sites * config.sketch**2, min(K, experts)
    blocks, tokens = max(1, sites // 3), config.tasks * config.photos * max(1, width // 4)
    # Factors of a step's mixtures and their gradients; weights, gradients and moments; what blocks keep.
    learning = experts * layout.size + 4 * config.tasks * mixed * layout.size + 4 * parameters
    learning += tokens * blocks * _KEPT * width
    # A block has 12 width^2 weights; a forward and a backward pass that leaves them as they are; the probes.
    steps = config.steps + 2 * -(-32 // config.tasks)
    work = steps * 2 * tokens * (blocks * 12 * width**2 + mixed * layout.size)
    needs = {
        "parameters": parameters,
        "bytes": 4 * learning,
        "seconds": work / _products(width, device),
        "stored_bytes": 4 * (parameters + sketch),
    }
    if torch.device(device).type != "cpu":
        return {**needs, "bytes": 4 * experts * layout.size, "device_bytes": 4 * learning}
    return needs


def _products(width: int, device: str) -> float:
    """Products of two numbers, summed up, that a device makes in a second: the better of two tries."""
    x, weight = (torch.zeros(rows, width, device=device) for rows in (1024, width))
    best = float("inf")
    for _ in range(2):
        began = time.monotonic()
        for _ in range(4):
            y = x @ weight.T
        float(y[0, 0])  # waits for the device
        best = min(best, time.monotonic() - began)
    return 4 * 1024 * width**2 / max(best, 1e-9)
