"""The batches of training: the order of a task's photos and captions, and which photos are mirrored.

Shapes: N photos, D embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sglora_cli.config import TrainConfig
from sglora_cli.data.features import StoredTask
from sglora_cli.errors import Mismatch
from sglora_cli.plugin.values import TaskTensors

AnyTask = TaskTensors | StoredTask


@dataclass(frozen=True)
class Batch:
    """The photos of a step, and one caption (or class) of each."""

    photos: list[int]
    texts: list[int]
    seed: int = 0
    """Seed for hiding tokens."""
    mirrored: Sequence[int] = ()
    """Rows of the batch whose photos are mirrored."""


class Batches:
    """Draws the batches of one task. They depend only on the seed, the task and the configuration."""

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
        self.mirror_share = config.mirror if task.mirror else 0.0

    def epoch(self) -> list[Batch]:
        """Return the batches of an epoch. Their sizes differ by at most one photo."""
        order = torch.randperm(len(self.own), generator=self.rng)
        draw = torch.rand(len(self.own), generator=self.rng)
        mirror = torch.rand(len(self.own), generator=self.rng).tolist() if self.mirror_share else [1.0] * len(self.own)
        seeds = torch.randint(2**62, (self.steps,), generator=self.rng).tolist() if self.hides else [0] * self.steps
        batches = []
        for part, seed in zip(torch.tensor_split(order, self.steps), seeds, strict=True):
            photos = part.tolist()
            texts = [self.own[i][int(draw[i] * len(self.own[i]))] for i in photos]
            mirrored = [n for n, i in enumerate(photos) if mirror[i] < self.mirror_share]
            batches.append(Batch(photos, texts, seed, mirrored))
        return batches
