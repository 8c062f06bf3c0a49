"""Learning by retrieval: train a network so that its adapters rank the seen tasks' photos and captions right.

Shapes: T tasks of a step, P numbers of an adapter.
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
                f"the training of {name} diverged: its loss is {float(total.detach())} in step {learning.epoch + 1}",
                f"lower learning_rate, which is {config.learning_rate:g}",
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
    """Raises Mismatch for fewer than two tasks."""
    if len(pool.names) < 2:
        raise Mismatch(f"{name} learns from seen tasks, there are {len(pool.names)}", "name more in the recipe")


@torch.no_grad()
def _probe(
    pool: TaskPool,
    weight_T: Tensor,
    config: RetrievalConfig,
    adapters: Callable[[Sequence[int], int], tuple[Layout, Tensor]],
    step: int,
) -> float:
    """Mean loss of tasks that are spread evenly over those that are drawn, each time on the same photos."""
    drawn, rng = weight_T.nonzero().flatten().tolist(), torch.Generator().manual_seed(0)
    tasks = [drawn[n] for n in sorted({n * len(drawn) // _PROBED for n in range(_PROBED)})]
    parts = [tasks[n : n + config.tasks] for n in range(0, len(tasks), config.tasks)]
    found = [pool.losses(*adapters(part, step), part, config.photos, rng) for part in parts]
    return float(torch.cat(found).mean())


def seen_means(pool: TaskPool, images_TD: Tensor | None = None) -> SeenMeans | None:
    """What the closed form of all-but-the-task is predicted from: of whole tasks, without phrases.

    images_TD: other mean embeddings of the pool's photos, as of photos with an adapter. None for a backbone without a
    projection.
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
    """(T,) how often each task is drawn, up to a factor. Of tasks of one kind only, all alike."""
    phrase_T = torch.tensor([role == PHRASE for role in pool.roles])
    if bool(phrase_T.all()) or not bool(phrase_T.any()):
        return torch.ones(len(phrase_T))
    return torch.where(phrase_T, phrases / phrase_T.sum(), (1 - phrases) / (~phrase_T).sum())
