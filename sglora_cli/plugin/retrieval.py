"""Learning by retrieval: a network whose adapters shall find the photos and captions of the seen tasks.

Shapes: T tasks of a step, P numbers of an adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sglora_cli.errors import Mismatch
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.learning import Learning
from sglora_cli.plugin.values import PHRASE, Material, TaskPool

_ENDS = 20
"""Steps at the beginning and the end whose mean losses are told."""


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
    penalty: Callable[[], Tensor] | None = None,
) -> dict[str, Any]:
    """Train a network in place, from the material's checkpoint if there is one. Returns facts for the manifest.

    adapters(tasks, step): the adapters (T, P) of these tasks of the pool and their layout, from the network.
    penalty: what is added to the mean loss of a step, of the last adapters.  name: for notes.
    Raises Mismatch for fewer than two tasks, and for a loss that is not finite.
    """
    pool, steps = material.pool, config.steps
    if len(pool.names) < 2:
        raise Mismatch(f"{name} learns from seen tasks, there are {len(pool.names)}", "name more in the recipe")
    learning = Learning(network, steps, config.learning_rate, config.weight_decay, material.seed)
    learning.resume(material.checkpoint)
    weight_T, losses = task_weights(pool, config.phrases), list(learning.losses)
    while learning.epoch < steps:
        tasks = torch.multinomial(weight_T, config.tasks, replacement=True, generator=learning.rng).tolist()
        layout, adapters_TP = adapters(tasks, learning.epoch)
        loss = pool.losses(layout, adapters_TP, tasks, config.photos, learning.rng).mean()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise Mismatch(
                f"the training of {name} diverged: its loss is {losses[-1]} in step {len(losses)}",
                f"lower learning_rate, which is {config.learning_rate:g}",
            )
        learning.step(loss + penalty() if penalty else loss)
        learning.epoch, learning.losses = learning.epoch + 1, losses
        if learning.epoch % 50 == 0:
            material.note(f"{name}: step {learning.epoch} of {steps}, loss {sum(losses[-50:]) / 50:.4f}")
        if material.checkpoint and material.checkpoint.due:
            learning.save(material.checkpoint)
    phrases, ends = list(pool.roles).count(PHRASE), min(_ENDS, steps)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_on": {"tasks": len(pool.names) - phrases, "phrases": phrases},
        "loss": sum(losses[-ends:]) / ends,
        "loss_at_start": sum(losses[:ends]) / ends,
    }


def task_weights(pool: TaskPool, phrases: float) -> Tensor:
    """(T,) how often each task is drawn, up to a factor. Of tasks of one kind only, all alike."""
    phrase_T = torch.tensor([role == PHRASE for role in pool.roles])
    if bool(phrase_T.all()) or not bool(phrase_T.any()):
        return torch.ones(len(phrase_T))
    return torch.where(phrase_T, phrases / phrase_T.sum(), (1 - phrases) / (~phrase_T).sum())
