"""What a training step is shown: the order of a task's photos and captions, and which tokens are hidden.

Shapes: N photos, D embedding, L tokens, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sglora_cli.config import TrainConfig
from sglora_cli.data.features import StoredTask
from sglora_cli.errors import Mismatch
from sglora_cli.plugin.values import TaskTensors

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


def drop_tokens(stem_NLW: Tensor, share: float, prefix: int, dice: torch.Generator) -> Tensor:
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
