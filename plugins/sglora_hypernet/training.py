"""Train a hypernetwork end to end by retrieval, or to reproduce adapters. See the package's docstring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sglora_cli.api import (
    Layout,
    Learning,
    Material,
    Mismatch,
    Scaling,
    SeenMeans,
    Site,
    TaskPool,
    Unavailable,
    check_pool,
    learn_by_retrieval,
    seen_means,
    state_spread,
)

from . import EXPERTS, PROJECTION, HyperConfig, ReconstructionConfig
from .network import FittedHypernet, Network

_MORE = "add training tasks to the recipe"
_ENDS = 20
"""Number of first and last steps whose mean losses are compared."""


def by_retrieval(material: Material, config: HyperConfig) -> tuple[FittedHypernet, dict[str, Any]]:
    """Train by retrieval. Raises Mismatch for fewer than two tasks, Unavailable for a backbone without the sites."""
    pool, rng = material.pool, torch.Generator().manual_seed(material.seed)
    check_pool(pool, "hypernet")
    projection, start = _start(pool, config)
    sites = (*(pool.sites if config.sites != PROJECTION else ()), *((projection,) if projection else ()))
    learned = Layout(sites, config.rank, float(config.rank))
    network = Network(learned.initial(material.seed), pool.sentences_TD, config.hidden, rng)
    fitted = FittedHypernet(network, learned, projection, start)

    def adapters(tasks: Sequence[int], step: int) -> tuple[Layout, Tensor]:
        return fitted.own_layout, fitted.adapters(pool.sentences_TD[list(tasks)])

    facts = learn_by_retrieval(material, network, config, adapters, "hypernet")
    network.requires_grad_(False).eval()
    return fitted, facts


def _start(pool: TaskPool, config: HyperConfig) -> tuple[Site | None, SeenMeans | None]:
    """Return the projection if it is updated, and the closed form if training starts from it."""
    if config.sites == EXPERTS:
        return None, None
    if (seen := seen_means(pool)) is None:
        raise Unavailable(
            "the hypernetwork updates the last projection, but this backbone has none",
            f'set sites = "{EXPERTS}" in its table',
        )
    return seen.projection, seen if config.closed_form else None


def by_reconstruction(material: Material, config: ReconstructionConfig) -> tuple[FittedHypernet, dict[str, Any]]:
    """Train by reconstruction. Raises Mismatch for fewer than two training tasks."""
    tasks, rng = len(material.tasks), torch.Generator().manual_seed(material.seed)
    if tasks < 2:
        raise Mismatch(
            f"a hypernetwork needs at least 2 training tasks, got {tasks}", "add training tasks to the recipe"
        )
    layout = material.experts.layout
    sentence_TD = torch.stack([prior.embedding_D for prior in material.priors])
    whole = Scaling.of(material.experts)
    common_P = whole.centre_P
    network = Network(common_P, sentence_TD, config.hidden, rng)
    fitted = FittedHypernet(network, layout, None, None)

    learning = Learning(network, config.steps, config.learning_rate, config.weight_decay, material.seed)
    learning.resume(material.checkpoint)
    losses = list(learning.losses)
    while learning.epoch < config.steps:
        task_B = torch.randint(tasks, (config.batch,), generator=learning.rng)
        state_B = torch.randint(material.states_of_task, (config.batch,), generator=learning.rng)
        x_BP = torch.cat([material.rows(t, [s]) for t, s in zip(task_B.tolist(), state_B.tolist(), strict=True)])
        loss = ((fitted.adapters(sentence_TD[task_B]) - x_BP) / whole.unit_P).square().mean()
        learning.step(loss)
        losses.append(float(loss.detach()))
        learning.epoch, learning.losses = learning.epoch + 1, losses
        if material.checkpoint and material.checkpoint.due:
            learning.save(material.checkpoint)
    network.requires_grad_(False).eval()
    ends = min(_ENDS, config.steps)
    return fitted, {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_on": {"tasks": tasks, "states": material.states_of_task},
        "error_per_number": sum(losses[-ends:]) / ends,
        "spread_per_number": state_spread(material, whole),
    }
