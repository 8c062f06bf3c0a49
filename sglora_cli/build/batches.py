"""The batches of training: the order of a task's photos and captions, which photos are mirrored, which tokens hidden.

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
    """The photos of a step, and one caption (or class) of each."""

    photos: list[int]
    texts: list[int]
    seed: int = 0
    """Seed of the tokens that are hidden."""
    mirrored: Sequence[int] = ()
    """Rows of the batch whose photos are mirrored."""


class Batches:
    """Draws the batches of one task, which depend only on the seed and the task's name."""

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
        """The batches of an epoch. Their sizes differ by one photo at most."""
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


def drop_tokens(stem_NLW: Tensor, share: float, prefix: int, rng: torch.Generator) -> Tensor:
    """Leave out a random `share` of each photo's tokens: (N, fewer, W). Keeps the first `prefix` and at least one more.

    PatchDropout (Liu et al. 2023), as FLIP trains: the `hide` of a backbone whose stem is a sequence of tokens.
    """
    count = stem_NLW.shape[1] - prefix
    kept = max(1, round(count * (1 - share)))
    order_NL = torch.rand(len(stem_NLW), count, generator=rng).argsort(dim=1)
    index_NL = order_NL[:, :kept].sort(dim=1).values + prefix
    index_NL = torch.cat([torch.arange(prefix).expand(len(stem_NLW), -1), index_NL], dim=1).to(stem_NLW.device)
    return stem_NLW.gather(1, index_NL[:, :, None].expand(-1, -1, stem_NLW.shape[2]))
