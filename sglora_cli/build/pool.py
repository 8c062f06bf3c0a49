"""The seen tasks of a build with their photos, for generators that learn by retrieval: a TaskPool (see values.py).

Photos are compared by content. If one task is left out, its photos are also removed from all other tasks.

Shapes: T tasks, N photos of a step, C captions, D embedding, I input of the projection, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.build.bank import Bank
from sglora_cli.build.batches import Batch
from sglora_cli.build.moments import moments
from sglora_cli.build.pool_tasks import Place, PoolTask
from sglora_cli.build.task_stack import TaskStack
from sglora_cli.build.training import losses
from sglora_cli.config import TrainConfig
from sglora_cli.data.phrases import share_a_word
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import Prior
from sglora_cli.lora.projection import project, split_projection
from sglora_cli.plugin.contracts import HasProjection, Model
from sglora_cli.plugin.values import PHRASE, Moments, TaskTensors


class Pool:
    """The pool of a build, or of one fold of it."""

    def __init__(
        self,
        bank: Bank,
        tasks: Sequence[PoolTask],
        config: TrainConfig,
        prior: Callable[[PoolTask], Prior],
        least_photos: int = 2,
    ) -> None:
        self._bank, self.model, self.tasks, self.config, self._prior = bank, bank.model, tasks, config, prior
        self.least_photos, self.sites = least_photos, tuple(bank.model.sites)
        self.names, self.roles = [t.name for t in tasks], [t.role for t in tasks]

    def without(self, names: Collection[str]) -> Pool:
        """Return the pool as if these tasks were unseen: without them, their photos, and phrases with a word of theirs.

        Tasks with fewer than two remaining photos are also removed, and phrases with fewer than the recipe requires.
        """
        gone = [t for t in self.tasks if t.name in names]
        photos = {self._bank.hash_of(place) for t in gone for place in t.photos}
        words = [t.words for t in gone]
        left = []
        for t in self.tasks:
            if t.name in names or (t.role == PHRASE and share_a_word(t.words, words)):
                continue
            kept = tuple(place for place in t.photos if self._bank.hash_of(place) not in photos)
            if len(kept) >= (self.least_photos if t.role == PHRASE else 2):
                left.append(replace(t, photos=kept))
        return Pool(self._bank, left, self.config, self._prior, self.least_photos)

    @cached_property
    def sentences_TD(self) -> Tensor:
        return self.model.encode_text([t.description for t in self.tasks]).float()

    def prior(self, task: int) -> Prior:
        return self._prior(self.tasks[task])

    @cached_property
    def moments(self) -> Moments:
        return moments(self._bank, self.tasks)

    @torch.no_grad()
    def mean_images(self, layout: Layout, flat_P: Tensor) -> Tensor:
        embedded: dict[Place, Tensor] = {}
        for n in sorted({n for t in self.tasks for n, _ in t.photos}):
            embedded |= {(n, row): one_D for row, one_D in enumerate(self._bank.adapted(n, layout, flat_P))}
        return torch.stack([torch.stack([embedded[place] for place in t.photos]).mean(dim=0) for t in self.tasks])

    def losses(
        self, layout: Layout, adapters_TP: Tensor, tasks: Sequence[int], photos: int, rng: torch.Generator
    ) -> Tensor:
        last = self._is_last(layout)
        drawn = [self._draw(self.tasks[t], photos, rng, last) for t in tasks]
        batches = [batch for _, batch in drawn]
        model = self._last_map if last else self.model
        # Inputs of the projection are cached for complete photos. With hidden parts they would change in every step.
        hide = 0.0 if last else self.config.hide
        stack = TaskStack([task for task, _ in drawn], model.device, resident=False)
        (shown,) = stack.tables([list(enumerate(batches))])
        if last or self.model.loss_scale == 1:
            return losses(model, layout, stack, shown, adapters_TP, hide)  # type: ignore[arg-type]
        return _scaled(self.model.loss_scale, adapters_TP, lambda x: losses(self.model, layout, stack, shown, x, hide))

    @cached_property
    def _last_map(self) -> _LastMap:
        return _LastMap(self.model)

    def _is_last(self, layout: Layout) -> bool:
        return isinstance(self.model, HasProjection) and layout.sites == (self.model.projection,)

    def _draw(self, one: PoolTask, photos: int, rng: torch.Generator, last: bool) -> tuple[TaskTensors, Batch]:
        """Draw some photos of a task, each with one of its captions or its class, and a batch of all of them."""
        order = torch.randperm(len(one.photos), generator=rng)[:photos].tolist()
        mirrored = (torch.rand(len(order), generator=rng) < self.config.mirror).tolist()
        which = torch.rand(len(order), generator=rng).tolist()
        seed = int(torch.randint(2**62, (1,), generator=rng))
        places = [one.photos[n] for n in order]
        x, texts, labels, heads_CD = self._bank.pairs(places, mirrored, which, last)
        rows = list(range(len(places)))
        if heads_CD is None:
            return TaskTensors(one.name, x, texts, tuple(rows)), Batch(rows, rows, seed)
        return TaskTensors(one.name, x, heads_CD, (), tuple(labels)), Batch(rows, labels, seed)


def _scaled(scale: float, adapters_TP: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a loss (T,) whose gradient is computed times `scale`, for models in fp16.

    Overflowing gradients count as 0.
    """
    own_TP = adapters_TP * 1
    if own_TP.requires_grad:
        own_TP.register_hook(lambda gradient_TP: torch.nan_to_num(gradient_TP / scale, 0.0, 0.0, 0.0))
    loss_T = loss(own_TP)
    return loss_T.detach() + scale * (loss_T - loss_T.detach())


class _LastMap:
    """The projection alone, as a model whose stems are the inputs of the projection."""

    def __init__(self, model: Model) -> None:
        assert isinstance(model, HasProjection)
        self.device, self.scale, self._site = model.device, model.scale, model.projection
        self._weight_DI = model.projection_weight().to(model.device)

    def encode_image(self, stem: Tensor, layout: Layout, adapters_TP: Tensor) -> Tensor:
        _, update = split_projection(layout, adapters_TP.to(self.device), self._site)
        return F.normalize(project(stem.to(self.device).float(), self._weight_DI, update), dim=-1)
