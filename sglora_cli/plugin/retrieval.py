"""Train a generator's network by retrieval: its adapters must rank photos and captions of the seen tasks correctly.

Shapes: T tasks of a step, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sglora_cli.errors import Mismatch
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.removal import SeenMeans
from sglora_cli.plugin.learning import Learning
from sglora_cli.plugin.values import PHRASE, Material, TaskPool

_NOTED = 50
"""Steps between two progress notes, and the number of steps their mean loss covers."""
_PROBED = 32
"""Number of seen tasks whose loss is measured before and after training, on the same photos."""


class RetrievalConfig(Protocol):
    """The settings that every generator trained by retrieval has in its config."""

    @property
    def steps(self) -> int: ...

    @property
    def tasks(self) -> int:
        """Tasks per step."""

    @property
    def photos(self) -> int:
        """Most photos per task in a step."""

    @property
    def phrases(self) -> float:
        """Share of phrases among the tasks of a step, if the pool has phrases."""

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
    """Train a network in place, resuming from the material's checkpoint if there is one. Returns manifest facts.

    adapters(tasks, step): uses the network to make adapters (T, P) for tasks of the pool, and returns their layout too.
    penalty(tasks): a term added to the mean loss of a step.  name: the name used in notes.
    The facts "loss_at_start" and "loss" are mean losses of some tasks of the pool, before and after training.
    Raises Mismatch for fewer than two tasks, and if the loss is not finite.
    """
    pool, steps = material.pool, config.steps
    check_pool(pool, name)
    learning = Learning(network, steps, config.learning_rate, config.weight_decay, material.seed)
    learning.resume(material.checkpoint)
    weight_T = task_weights(pool, config.phrases)
    if not learning.losses:
        learning.losses = [_probe(pool, weight_T, config, adapters, 0), 0.0]
    while learning.epoch < steps:
        tasks = torch.multinomial(weight_T, config.tasks, replacement=True, generator=learning.rng).tolist()
        layout, adapters_TP = adapters(tasks, learning.epoch)
        loss = pool.losses(layout, adapters_TP, tasks, config.photos, learning.rng).mean()
        total = loss + penalty(tasks) if penalty else loss
        if not bool(torch.isfinite(total)):
            raise Mismatch(
                f"the training of {name} diverged: the loss is {float(total.detach())} in step {learning.epoch + 1}",
                f"lower learning_rate, now {config.learning_rate:g}",
            )
        learning.step(total)
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
        "loss": _probe(pool, weight_T, config, adapters, steps),
    }


def check_pool(pool: TaskPool, name: str) -> None:
    """Raise Mismatch for fewer than two tasks."""
    if len(pool.names) < 2:
        raise Mismatch(f"{name} needs at least 2 seen tasks, got {len(pool.names)}", "add tasks to the recipe")


@torch.no_grad()
def _probe(
    pool: TaskPool,
    weight_T: Tensor,
    config: RetrievalConfig,
    adapters: Callable[[Sequence[int], int], tuple[Layout, Tensor]],
    step: int,
) -> float:
    """Return the mean loss of tasks spread evenly over those that can be drawn, on the same photos in every call."""
    drawn, rng = weight_T.nonzero().flatten().tolist(), torch.Generator().manual_seed(0)
    tasks = [drawn[n] for n in sorted({n * len(drawn) // _PROBED for n in range(_PROBED)})]
    parts = [tasks[n : n + config.tasks] for n in range(0, len(tasks), config.tasks)]
    found = [pool.losses(*adapters(part, step), part, config.photos, rng) for part in parts]
    return float(torch.cat(found).mean())


def seen_means(pool: TaskPool, images_TD: Tensor | None = None) -> SeenMeans | None:
    """Collect the task means that predict the closed form of all-but-the-task, without phrases.

    images_TD: other mean embeddings of the pool's photos, for example with an adapter. Returns None for a backbone
    without a projection.
    """
    moments, rows = pool.moments, [row for row, role in enumerate(pool.roles) if role != PHRASE]
    if moments.projection is None or moments.projection_DI is None or moments.length_I is None:
        return None
    images_TD = moments.images_TD if images_TD is None else images_TD
    sentences_TD, captions_TD = moments.sentences_TD[rows], moments.captions_TD[rows]
    return SeenMeans(
        moments.projection, sentences_TD, images_TD[rows], captions_TD, moments.projection_DI, moments.length_I
    )


def task_weights(pool: TaskPool, phrases: float) -> Tensor:
    """Return (T,) unnormalised weights for drawing each task. They are equal if all tasks are of one kind."""
    phrase_T = torch.tensor([role == PHRASE for role in pool.roles])
    if bool(phrase_T.all()) or not bool(phrase_T.any()):
        return torch.ones(len(phrase_T))
    return torch.where(phrase_T, phrases / phrase_T.sum(), (1 - phrases) / (~phrase_T).sum())
