"""What training reads: tasks behind the frozen parts, the order of their photos and captions, what is hidden of
them; and Adam with a step count a row.

Shapes: N photos, C captions or classes, D embedding, L tokens, W width, T tasks, P numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sglora_cli.configs import TrainConfig
from sglora_cli.errors import Mismatch
from sglora_cli.tensor_rows import TensorRows


@dataclass(frozen=True)
class TaskTensors:
    """A task's photos behind the frozen parts: stems (N, ...) float16, texts (C, D), caption -> photo.

    Of a classification task: text_CD are the heads of its classes, label_of is photo -> class, image_of is empty.
    """

    name: str
    stem_N: Tensor = field(repr=False)
    text_CD: Tensor = field(repr=False)
    image_of: tuple[int, ...] = field(repr=False)
    label_of: tuple[int, ...] = field(default=(), repr=False)
    mirror: TaskTensors | None = field(default=None, repr=False)
    """The same photos and captions left to right."""

    def to(self, device: torch.device) -> TaskTensors:
        """The same, with its tensors on a device: a step there then waits for no copy."""
        mirror = self.mirror.to(device) if self.mirror else None
        return replace(self, stem_N=self.stem_N.to(device), text_CD=self.text_CD.to(device), mirror=mirror)


@dataclass(frozen=True)
class StoredTask:
    """The same, left on disk: a step reads the rows it needs."""

    name: str
    stem_N: TensorRows
    text_CD: TensorRows
    image_of: tuple[int, ...]
    label_of: tuple[int, ...] = ()
    mirror: StoredTask | None = field(default=None, repr=False)

    def to(self, device: torch.device) -> TaskTensors:
        mirror = self.mirror.to(device) if self.mirror else None
        stem_N, text_CD = self.stem_N.to(device), self.text_CD.to(device)
        return TaskTensors(self.name, stem_N, text_CD, self.image_of, self.label_of, mirror)


AnyTask = TaskTensors | StoredTask


@dataclass(frozen=True)
class Batch:
    """Photos of a step, one caption (or class) of each, how they are shown."""

    photos: list[int]
    texts: list[int]
    seed: int = 0
    """Of what is hidden of them."""
    turned: Sequence[int] = ()
    """Rows that are shown mirrored."""

    def of(self, task: AnyTask) -> tuple[Tensor, Tensor]:
        """(stems (N, ...), texts (N, D)), nothing hidden."""
        stem_N, text_ND = task.stem_N[self.photos], task.text_CD[self.texts]
        if self.turned and task.mirror:
            rows = list(self.turned)
            stem_N[rows] = task.mirror.stem_N[[self.photos[n] for n in rows]]
            text_ND[rows] = task.mirror.text_CD[[self.texts[n] for n in rows]]
        return stem_N, text_ND


class Batches:
    """The order of one task's photos and captions; depends on the seed and the task's name only."""

    def __init__(self, task: AnyTask, config: TrainConfig) -> None:
        if len(task.stem_N) < 2:
            raise Mismatch(f"task {task.name!r} has {len(task.stem_N)} photo(s); training needs two")
        digest = hashlib.sha256(f"{config.seed} {task.name}".encode()).digest()
        self.rng = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        self.own: list[list[int]] = [[] for _ in range(len(task.stem_N))]
        owners = task.image_of or range(len(task.label_of))
        for text, image in zip(task.label_of or range(len(owners)), owners, strict=True):
            self.own[image].append(text)
        self.steps, self.hides = -(-len(task.stem_N) // config.batch), config.hide > 0
        self.turns = config.mirror if task.mirror else 0.0

    def epoch(self) -> list[Batch]:
        """Every step of an epoch; sizes differ by one photo at most."""
        order = torch.randperm(len(self.own), generator=self.rng)
        draw = torch.rand(len(self.own), generator=self.rng)
        shown = torch.rand(len(self.own), generator=self.rng).tolist() if self.turns else [1.0] * len(self.own)
        seeds = torch.randint(2**62, (self.steps,), generator=self.rng).tolist() if self.hides else [0] * self.steps
        batches = []
        for part, seed in zip(torch.tensor_split(order, self.steps), seeds, strict=True):
            photos = part.tolist()
            texts = [self.own[i][int(draw[i] * len(self.own[i]))] for i in photos]
            turned = [n for n, i in enumerate(photos) if shown[i] < self.turns]
            batches.append(Batch(photos, texts, seed, turned))
        return batches


class RowAdam:
    """Adam (Kingma & Ba 2015) whose rows keep their own step count, so that a task can sit a step out."""

    def __init__(self, parameters_TP: Tensor, config: TrainConfig, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.x, self.rate, self.decay, self.betas = parameters_TP, config.learning_rate, config.weight_decay, betas
        self.first, self.second = torch.zeros_like(parameters_TP), torch.zeros_like(parameters_TP)
        self.count_T1 = torch.zeros(len(parameters_TP), 1, device=parameters_TP.device)

    @torch.no_grad()
    def step(self, gradient_TP: Tensor, rows: Tensor) -> None:
        """Update the given rows; gradient_TP has all of them."""
        one, two = self.betas
        g = gradient_TP[rows]
        self.count_T1[rows] += 1
        first = self.first[rows] * one + g * (1 - one)
        second = self.second[rows] * two + g * g * (1 - two)
        self.first[rows], self.second[rows] = first, second
        n = self.count_T1[rows]
        scale = (second / (1 - two**n)).sqrt() + 1e-8
        self.x[rows] = self.x[rows] * (1 - self.rate * self.decay) - self.rate * (first / (1 - one**n)) / scale

    def tensors(self) -> dict[str, Tensor]:
        """The parameters and where Adam stands."""
        return {"x": self.x.detach(), "first": self.first, "second": self.second, "count": self.count_T1}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, own in self.tensors().items():
            own.copy_(tensors[name])


def hidden(stem_NLW: Tensor, share: float, prefix: int, dice: torch.Generator) -> Tensor:
    """(N, fewer, W): of each photo `share` of its tokens are left out, at random; the first `prefix` stay.

    What a backbone's `hide` does whose stem is a sequence of tokens: PatchDropout (Liu et al. 2023), as FLIP trains.
    At least one token stays.
    """
    count = stem_NLW.shape[1] - prefix
    kept = max(1, round(count * (1 - share)))
    order_NL = torch.rand(len(stem_NLW), count, generator=dice).argsort(dim=1)
    index_NL = order_NL[:, :kept].sort(dim=1).values + prefix
    index_NL = torch.cat([torch.arange(prefix).expand(len(stem_NLW), -1), index_NL], dim=1).to(stem_NLW.device)
    return stem_NLW.gather(1, index_NL[:, :, None].expand(-1, -1, stem_NLW.shape[2]))
