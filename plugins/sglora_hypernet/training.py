"""How a hypernetwork is trained: end to end by retrieval, or to reproduce adapters. See the package's docstring."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sglora_cli.api import PHRASE, Layout, Material, Mismatch, Site, TaskPool, Unavailable

from . import EXPERTS, PROJECTION, HyperConfig, ReconstructionConfig
from .network import FittedHypernet, Network, Start

_MORE = "name more training tasks in the recipe"
_ENDS = 20
"""Steps at the beginning and the end whose mean losses are compared."""


def by_retrieval(material: Material, config: HyperConfig) -> tuple[FittedHypernet, dict[str, Any]]:
    """Raises Mismatch for fewer than two tasks, Unavailable for a backbone without the sites."""
    pool, rng = material.pool, torch.Generator().manual_seed(material.seed)
    if len(pool.names) < 2:
        raise Mismatch(f"a hypernetwork learns from seen tasks, there are {len(pool.names)}", _MORE)
    projection, start = _start(pool, config)
    sites = (*(pool.sites if config.sites != PROJECTION else ()), *((projection,) if projection else ()))
    learned = Layout(sites, config.rank, float(config.rank))
    network = Network(learned.initial(material.seed), pool.sentences_TD, config.hidden, rng)
    fitted = FittedHypernet(network, learned, projection, start)
    draw = _Draw(pool, config, rng)

    def loss(step: int) -> Tensor:
        tasks = draw.tasks()
        adapters_TP = fitted.adapters(pool.sentences_TD[tasks])
        return pool.losses(fitted.own_layout, adapters_TP, tasks, config.photos, rng).mean()

    facts = _trained(network, config, loss, material.note)
    network.requires_grad_(False).eval()
    roles = list(pool.roles)
    trained_on = {"tasks": len(roles) - roles.count(PHRASE), "phrases": roles.count(PHRASE)}
    return fitted, {**facts, "trained_on": trained_on}


def _start(pool: TaskPool, config: HyperConfig) -> tuple[Site | None, Start | None]:
    """The projection, if it is updated, and the closed form, if it is the start."""
    if config.sites == EXPERTS:
        return None, None
    moments = pool.moments
    if moments.projection is None or moments.projection_DI is None or moments.length_I is None:
        raise Unavailable(
            "the hypernetwork updates the last projection, and this backbone has none",
            f'say sites = "{EXPERTS}" in its table',
        )
    if not config.closed_form:
        return moments.projection, None
    seen = moments.sentences_TD, moments.images_TD, moments.captions_TD
    return moments.projection, Start(*seen, moments.projection_DI, moments.length_I)


class _Draw:
    """Which tasks a step learns from: phrases and others, each with its share."""

    def __init__(self, pool: TaskPool, config: HyperConfig, rng: torch.Generator) -> None:
        self.rng, self.count = rng, config.tasks
        phrase_T = torch.tensor([role == PHRASE for role in pool.roles])
        share = config.phrases if bool(phrase_T.any()) else 0.0
        share = share if not bool(phrase_T.all()) else 1.0
        weight_T = torch.where(
            phrase_T, share / phrase_T.sum().clamp_min(1), (1 - share) / (~phrase_T).sum().clamp_min(1)
        )
        self.weight_T = weight_T

    def tasks(self) -> list[int]:
        drawn: list[int] = torch.multinomial(self.weight_T, self.count, replacement=True, generator=self.rng).tolist()
        return drawn


def by_reconstruction(material: Material, config: ReconstructionConfig) -> tuple[FittedHypernet, dict[str, Any]]:
    """Raises Mismatch for fewer than two training tasks."""
    tasks, rng = len(material.tasks), torch.Generator().manual_seed(material.seed)
    if tasks < 2:
        raise Mismatch(
            f"a hypernetwork learns from adapters of training tasks, there are {tasks}", "give the recipe more"
        )
    layout = material.experts.layout
    sentence_TD = torch.stack([prior.embedding_D for prior in material.priors])
    common_P = material.experts.means().mean(dim=0)
    unit_P = _units(material, common_P)
    network = Network(common_P, sentence_TD, config.hidden, rng)
    fitted = FittedHypernet(network, layout, None, None)

    def loss(step: int) -> Tensor:
        task_B = torch.randint(tasks, (config.batch,), generator=rng)
        state_B = torch.randint(material.states_of_task, (config.batch,), generator=rng)
        x_BP = torch.cat([material.rows(t, [s]) for t, s in zip(task_B.tolist(), state_B.tolist(), strict=True)])
        return ((fitted.adapters(sentence_TD[task_B]) - x_BP) / unit_P).square().mean()

    facts = _trained(network, config, loss, material.note)
    network.requires_grad_(False).eval()
    return fitted, {**facts, "trained_on": {"tasks": tasks, "states": material.states_of_task}}


def _units(material: Material, common_P: Tensor) -> Tensor:
    """(P,) root mean square deviation of B's numbers and of A's, each, as the CVAE has them."""
    square_P = (material.experts.means() - common_P).square().mean(dim=0) + material.experts.variances().mean(dim=0)
    in_b_P = material.experts.layout.b_mask()
    b, a = (square_P[part].mean().sqrt().clamp_min(1e-8) for part in (in_b_P, ~in_b_P))
    return torch.where(in_b_P, b, a)


def _trained(
    network: Network,
    config: HyperConfig | ReconstructionConfig,
    loss: Callable[[int], Tensor],
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Train with AdamW and cosine decay. Returns the losses of the first and the last steps."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    losses = []
    for step in range(config.steps):
        now = loss(step)
        if not math.isfinite(float(now.detach())):
            raise Mismatch(
                f"the hypernetwork's training diverged: its loss is {float(now.detach())} in step {step + 1}",
                f"lower learning_rate, which is {config.learning_rate:g}",
            )
        optimiser.zero_grad()
        now.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(now.detach()))
        if (step + 1) % 100 == 0:
            note(f"hypernetwork: step {step + 1} of {config.steps}, loss {sum(losses[-100:]) / 100:.4f}")
    ends = min(_ENDS, len(losses))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "loss": sum(losses[-ends:]) / ends,
        "loss_at_start": sum(losses[:ends]) / ends,
    }
