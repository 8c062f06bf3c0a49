"""The seen tasks of a build with their photos, for generators that learn by retrieval: a TaskPool (see values.py).

A phrase reads each photo from the first task that has it. Photos are compared by content: one that several tasks have
is left out with any of them.

Shapes: T tasks, N photos of a step, C captions, D embedding, I what the projection is applied to, P numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.build.batches import Batch
from sglora_cli.build.moments import Length, unprojected
from sglora_cli.build.tasks import BuildTask
from sglora_cli.build.training import losses
from sglora_cli.config import TrainConfig
from sglora_cli.data.encode import IMAGES_AT_ONCE, image_embeddings
from sglora_cli.data.features import StoredTask
from sglora_cli.data.phrases import chosen, phrases, share_a_word
from sglora_cli.errors import BadFile
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import Prior
from sglora_cli.lora.projection import project, split_projection
from sglora_cli.pack.recipe import Recipe
from sglora_cli.plugin.contracts import HasProjection, Model
from sglora_cli.plugin.values import PHRASE, UNSEEN, Moments, Task, TaskTensors

Place = tuple[int, int]
"""A photo: the build's seen task that has it, and its row there."""


@dataclass(frozen=True)
class PoolTask:
    """A seen task, or a phrase."""

    name: str
    role: str
    words: str
    """Its name, sentence and classes: phrases with a word of a task that is left out are left out."""
    description: str
    photos: tuple[Place, ...]


def pool_tasks(recipe: Recipe, tasks: Sequence[BuildTask], apart: Sequence[Task] = ()) -> list[PoolTask]:
    """The seen tasks of a build, then the phrases that its recipe takes from captions.

    No phrase has a word of an unseen task, or of one of `apart`: that task would be seen. Raises BadFile
    if a recipe asks for phrases and there is none.
    """
    seen = [t for t in tasks if t.role != UNSEEN]
    whole = [
        PoolTask(
            t.task.key, t.role, _words(t.task), t.task.description, tuple((n, row) for row in range(len(t.photos)))
        )
        for n, t in enumerate(seen)
    ]
    if not recipe.from_captions:
        return whole
    places: dict[str, Place] = {}
    for n, t in enumerate(seen):
        if t.task.dataset in recipe.from_captions and not t.task.classes:
            for row, photo in enumerate(t.train.hashes):
                places.setdefault(photo, (n, row))
    of_photo = list(places.values())
    config, found = recipe.phrases, phrases([seen[n].photos[row].captions for n, row in of_photo])
    unseen = [_words(task) for task in (*(t.task for t in tasks if t.role == UNSEEN), *apart)]
    allowed = {phrase: photos for phrase, photos in found.items() if not share_a_word(phrase, unseen)}
    if not of_photo:
        raise BadFile(
            f"the seen tasks of {', '.join(recipe.from_captions)} have no captions to take phrases from",
            "name another source in from_captions of [tasks], or leave the table out",
        )
    kept = chosen(allowed, len(of_photo), config.least_photos, config.largest_share, config.most)
    if not kept:
        most = max(map(len, allowed.values()), default=0)
        raise BadFile(
            f"no phrase in the captions of {', '.join(recipe.from_captions)} has {config.least_photos} photos and at "
            f"most {config.largest_share:g} of all {len(of_photo)}; the most common has {most}",
            "lower least_photos or raise largest_share in [tasks], or leave from_captions out",
        )
    return whole + [
        PoolTask(
            phrase, PHRASE, phrase, recipe.template.format(name=phrase, classes=""), tuple(of_photo[n] for n in photos)
        )
        for phrase, photos in kept.items()
    ]


def _places(n: int, t: BuildTask) -> tuple[Place, ...]:
    return tuple((n, row) for row in range(len(t.photos)))


def _words(task: Task) -> str:
    return " ".join((task.name, task.description, *task.classes))


def phrase_key(tasks: Sequence[PoolTask]) -> list[Any]:
    """What of a pool's phrases a fit follows from."""
    return [[t.name, t.description, list(t.photos)] for t in tasks if t.role == PHRASE]


def phrase_lines(tasks: Sequence[PoolTask]) -> list[str]:
    """What captions add to the seen tasks, in a sentence; nothing without phrases."""
    found = [t for t in tasks if t.role == PHRASE]
    if not found:
        return []
    most, fewest = len(found[0].photos), len(found[-1].photos)
    named = ", ".join(t.name for t in found[:5]) + (", ..." if len(found) > 5 else "")
    return [f"phrases of captions as seen tasks: {len(found)}, with {fewest} to {most} photos: {named}"]


class Pool:
    """The pool of a build, or of a fold of it."""

    def __init__(
        self,
        model: Model,
        seen: Sequence[BuildTask],
        tasks: Sequence[PoolTask],
        config: TrainConfig,
        prior: Callable[[PoolTask], Prior],
        bank: Bank | None = None,
        least_photos: int = 2,
    ) -> None:
        self.model, self.seen, self.tasks, self.config, self._prior = model, seen, tasks, config, prior
        self.least_photos = least_photos
        self.names, self.roles, self.sites = [t.name for t in tasks], [t.role for t in tasks], tuple(model.sites)
        self._bank = bank or Bank(model, seen)

    def without(self, names: Collection[str]) -> Pool:
        """As if these tasks were unseen: they, their photos and phrases with a word of theirs are gone.

        A task that has fewer than two photos left is gone, too, and a phrase that has fewer than the recipe asks for.
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
        return Pool(self.model, self.seen, left, self.config, self._prior, self._bank, self.least_photos)

    @cached_property
    def sentences_TD(self) -> Tensor:
        return self.model.encode_text([t.description for t in self.tasks]).float()

    def prior(self, task: int) -> Prior:
        return self._prior(self.tasks[task])

    @cached_property
    def moments(self) -> Moments:
        images, captions = [], []
        for t in self.tasks:
            images.append(self._bank.embeddings(t.photos).double().mean(dim=0))
            captions.append(self._bank.mean_caption(t.photos))
        keys = tuple(self.names)
        of_tasks = self.sentences_TD, torch.stack(images).float(), torch.stack(captions).float()
        if not isinstance(self.model, HasProjection):
            return Moments(keys, *of_tasks)
        length = Length(self.model.projection_weight())
        length.add(self._bank.before_projection(sorted({place for t in self.tasks for place in t.photos})))
        return Moments(keys, *of_tasks, self.model.projection, length.weight_DI, length.fitted().float())

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
        model = _LastMap(self.model) if last else self.model
        # What the projection is applied to is kept of whole photos: with a part hidden it would be another each time.
        hide = 0.0 if last else self.config.hide
        tasks_T = [task for task, _ in drawn]
        if last or self.model.loss_scale == 1:
            return losses(model, layout, tasks_T, batches, adapters_TP, hide)  # type: ignore[arg-type]
        return _scaled(
            self.model.loss_scale, adapters_TP, lambda x: losses(self.model, layout, tasks_T, batches, x, hide)
        )

    def _is_last(self, layout: Layout) -> bool:
        return isinstance(self.model, HasProjection) and layout.sites == (self.model.projection,)

    def _draw(self, one: PoolTask, photos: int, rng: torch.Generator, last: bool) -> tuple[TaskTensors, Batch]:
        """A task of some of its photos, each with one of its captions or its class, and the batch of all of them."""
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
    """A loss (T,) whose gradient is computed times `scale`, for a model in fp16; one that overflows counts as 0."""
    own_TP = adapters_TP * 1
    if own_TP.requires_grad:
        own_TP.register_hook(lambda gradient_TP: torch.nan_to_num(gradient_TP / scale, 0.0, 0.0, 0.0))
    loss_T = loss(own_TP)
    return loss_T.detach() + scale * (loss_T - loss_T.detach())


class Bank:
    """The photos of all seen tasks, by place; what is small is computed once and kept."""

    def __init__(self, model: Model, seen: Sequence[BuildTask]) -> None:
        self.model, self.seen = model, seen
        self._files: dict[int, StoredTask] = {}
        self._texts: dict[tuple[int, bool], Tensor] = {}
        self._last: dict[tuple[int, bool], Tensor] = {}
        self._embedded: dict[int, Tensor] = {}

    def hash_of(self, place: Place) -> str:
        return self.seen[place[0]].train.hashes[place[1]]

    def _file(self, task: int) -> StoredTask:
        if task not in self._files:
            self._files[task] = self.seen[task].stored(self.model)
        return self._files[task]

    def _text(self, task: int, mirrored: bool = False) -> Tensor:
        """(C, D)."""
        if (key := (task, mirrored)) not in self._texts:
            file = self._file(task)
            rows = (file.mirror or file if mirrored else file).text_CD
            self._texts[key] = rows[list(range(len(rows)))]
        return self._texts[key]

    def _unprojected(self, task: int, mirrored: bool = False) -> Tensor:
        """(N, I) float32 on the CPU, of all photos of a task."""
        if (key := (task, mirrored)) not in self._last:
            file = self._file(task)
            stem_N = (file.mirror or file if mirrored else file).stem_N
            self._last[key] = unprojected(self.model, stem_N)  # type: ignore[arg-type]
        return self._last[key]

    def before_projection(self, places: Iterable[Place]) -> Tensor:
        return torch.stack([self._unprojected(n)[row] for n, row in places])

    def embeddings(self, places: Sequence[Place]) -> Tensor:
        """Unit embeddings (N, D) without an adapter."""
        for n in {n for n, _ in places} - set(self._embedded):
            if isinstance(self.model, HasProjection):
                self._embedded[n] = F.normalize(self._unprojected(n) @ self.model.projection_weight().T, dim=1)
            else:
                self._embedded[n] = image_embeddings(self.model, self._file(n).stem_N)
        return torch.stack([self._embedded[n][row] for n, row in places])

    def adapted(self, task: int, layout: Layout, flat_P: Tensor) -> Tensor:
        """Unit embeddings (N, D) of a task's photos with an adapter, on the CPU."""
        stem_N = self._file(task).stem_N
        parts = torch.arange(len(stem_N)).split(IMAGES_AT_ONCE)
        adapter_1P = flat_P[None].to(self.model.device)
        return torch.cat(
            [self.model.encode_image(stem_N[part.tolist()], layout, adapter_1P)[0].cpu() for part in parts]
        )

    def mean_caption(self, places: Sequence[Place]) -> Tensor:
        """(D,) double: of the captions of these photos, each counting alike; of classes their heads, by photos."""
        captions = [self._text(n)[self._captions_of(n, row)] for n, row in places]
        return torch.cat(captions).double().mean(dim=0)

    def _captions_of(self, task: int, row: int) -> list[int]:
        """Rows of `text_CD` of a photo: its captions, or its class."""
        file = self._file(task)
        if file.label_of:
            return [file.label_of[row]]
        return self._owned[task][row]

    @cached_property
    def _owned(self) -> list[list[list[int]]]:
        """Task -> photo -> its captions."""
        owned = []
        for n, t in enumerate(self.seen):
            own: list[list[int]] = [[] for _ in t.photos]
            for caption, photo in enumerate(self._file(n).image_of):
                own[photo].append(caption)
            owned.append(own)
        return owned

    def pairs(
        self, places: Sequence[Place], mirrored: Sequence[bool], which: Sequence[float], last: bool
    ) -> tuple[Tensor, Tensor, list[int], Tensor | None]:
        """Stems (N, ...) of photos (what the projection is applied to, with `last`), their captions (N, D), which of
        each is chosen by a number in [0, 1); and of a classification task the classes and heads."""
        stems, texts, labels = [], [], []
        for (n, row), turned, chance in zip(places, mirrored, which, strict=True):
            file = self._file(n)
            one = file.mirror if turned and file.mirror else file
            stems.append(self._unprojected(n, one is not file)[row] if last else one.stem_N[row])
            own = self._captions_of(n, row)
            labels.append(own[int(chance * len(own))])
            texts.append(self._text(n, one is not file)[labels[-1]])
        heads_CD = self._text(places[0][0]) if self._file(places[0][0]).label_of else None
        return torch.stack(stems), torch.stack(texts), labels, heads_CD


class _LastMap:
    """The projection alone, as a model whose stem is what the projection is applied to."""

    def __init__(self, model: Model) -> None:
        assert isinstance(model, HasProjection)
        self.device, self.scale, self._site = model.device, model.scale, model.projection
        self._weight_DI = model.projection_weight().to(model.device)

    def encode_image(self, stem: Tensor, layout: Layout, adapters_TP: Tensor) -> Tensor:
        _, update = split_projection(layout, adapters_TP.to(self.device), self._site)
        return F.normalize(project(stem.to(self.device), self._weight_DI, update), dim=-1)
