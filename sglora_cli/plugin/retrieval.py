"""Learning by retrieval: a network whose adapters shall find the photos and captions of the seen tasks.

Shapes: T tasks of a step, P numbers of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sglora_cli.errors import Mismatch
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.learning import Learning
from sglora_cli.plugin.values import PHRASE, Material, TaskPool

_NOTED = 50
"""Steps whose mean loss a note tells."""
_PROBED = 32
"""Seen tasks whose loss is measured before and after, on the same photos."""


class RetrievalConfig(Protocol):
    """The knobs that a generator which learns so has in its config."""

    @property
    def steps(self) -> int: ...

    @property
    def tasks(self) -> int:
        """In a step."""

    @property
    def photos(self) -> int:
        """Of each task in a step, at most."""

    @property
    def phrases(self) -> float:
        """Share of phrases in the tasks of a step, where there are any."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...


def learn_by_retrieval(
    material: Material,
    network: nn.Module,
    config: RetrievalConfig,
    adapters: Callable[[Sequence[int], int], tuple[Layout, Tensor]],
    name: str,
    penalty: Callable[[Sequence[int]], Tensor] | None = None,
) -> dict[str, Any]:
    """Train a network in place, from the material's checkpoint if there is one. Returns facts for the manifest.

    adapters(tasks, step): the adapters (T, P) of these tasks of the pool and their layout, from the network.
    penalty(tasks): what is added to the mean loss of a step.  name: for notes.
    "loss" and "loss_at_start" of the facts are means over some tasks of the pool, after and before.
    Raises Mismatch for fewer than two tasks, and for a loss that is not finite.
    """
    pool, steps = material.pool, config.steps
    if len(pool.names) < 2:
        raise Mismatch(f"{name} learns from seen tasks, there are {len(pool.names)}", "name more in the recipe")
    learning = Learning(network, steps, config.learning_rate, config.weight_decay, material.seed)
    learning.resume(material.checkpoint)
    weight_T = task_weights(pool, config.phrases)
    if not learning.losses:
        learning.losses = [_probe(pool, config, adapters, 0), 0.0]
    while learning.epoch < steps:
        tasks = torch.multinomial(weight_T, config.tasks, replacement=True, generator=learning.rng).tolist()
        layout, adapters_TP = adapters(tasks, learning.epoch)
        loss = pool.losses(layout, adapters_TP, tasks, config.photos, learning.rng).mean()
        if not bool(torch.isfinite(loss)):
            raise Mismatch(
                f"the training of {name} diverged: its loss is {float(loss.detach())} in step {learning.epoch + 1}",
                f"lower learning_rate, which is {config.learning_rate:g}",
            )
        learning.step(loss + penalty(tasks) if penalty else loss)
        start, recent = learning.losses
        learning.epoch, learning.losses = learning.epoch + 1, [start, recent + float(loss.detach()) / _NOTED]
        if learning.epoch % _NOTED == 0:
            material.note(f"{name}: step {learning.epoch} of {steps}, loss {learning.losses[1]:.4f}")
            learning.losses = [start, 0.0]
        if material.checkpoint and material.checkpoint.due:
            learning.save(material.checkpoint)
    phrases = list(pool.roles).count(PHRASE)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_on": {"tasks": len(pool.names) - phrases, "phrases": phrases},
        "loss_at_start": learning.losses[0],
        "loss": _probe(pool, config, adapters, steps),
    }


@torch.no_grad()
def _probe(
    pool: TaskPool, config: RetrievalConfig, adapters: Callable[[Sequence[int], int], tuple[Layout, Tensor]], step: int
) -> float:
    """Mean loss of tasks that are spread evenly over the pool, each time on the same photos."""
    count, rng = len(pool.names), torch.Generator().manual_seed(0)
    tasks = sorted({n * count // _PROBED for n in range(_PROBED)})
    parts = [tasks[n : n + config.tasks] for n in range(0, len(tasks), config.tasks)]
    found = [pool.losses(*adapters(part, step), part, config.photos, rng) for part in parts]
    return float(torch.cat(found).mean())


def task_weights(pool: TaskPool, phrases: float) -> Tensor:
    """(T,) how often each task is drawn, up to a factor. Of tasks of one kind only, all alike."""
    phrase_T = torch.tensor([role == PHRASE for role in pool.roles])
    if bool(phrase_T.all()) or not bool(phrase_T.any()):
        return torch.ones(len(phrase_T))
    return torch.where(phrase_T, phrases / phrase_T.sum(), (1 - phrases) / (~phrase_T).sum())
