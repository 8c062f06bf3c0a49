"""The photos and texts of many tasks in one stack, so that a step is a table of the stack's rows.

On a GPU all tables of an epoch are copied at once, so no step waits for the device.

Shapes: K tasks of the stack, T tasks of a step, N photos of a step (padded), L.. stem, C texts or classes, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from math import prod

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sglora_cli.build.batches import AnyTask, Batch
from sglora_cli.files.tensor_rows import TensorRows

Rows = Tensor | TensorRows
Pair = tuple[int, Batch | None]
"""The number of a task and its batch. None means that the task is skipped, and its loss does not count."""
Hide = Callable[[Tensor, torch.Generator], Tensor]
"""Removes tokens of stems (N, L..)."""


@dataclass(frozen=True)
class Shown:
    """The inputs of a step, as rows of a stack."""

    pairs: Sequence[Pair]
    photos_TN: Tensor
    texts_TN: Tensor
    tasks_T: Tensor
    real_TN: Tensor
    """False for padding, which repeats a task's first photo."""
    active_K: Tensor
    """Which of all tasks are updated."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.photos_TN, self.texts_TN, self.tasks_T, self.real_TN, self.active_K

    def clone(self) -> Shown:
        return Shown(self.pairs, *(tensor.clone() for tensor in self.tensors))


class TaskStack:
    """Stems and texts of tasks, one task after another, each followed by its mirrored side if it has one."""

    def __init__(self, tasks: Sequence[AnyTask], device: torch.device, resident: bool) -> None:
        """Stack the tasks.

        resident: store everything on the device. Otherwise data stays where it is and each step copies its rows.
        """
        self.device, self.resident = device, resident
        self.classes = [len(task.text_CD) if task.label_of else 0 for task in tasks]
        """Number of classes of each task, or 0 if it learns from captions."""
        sides = [side for task in tasks for side in (task, task.mirror) if side]
        collect = _together if resident else _Apart
        self._stems = collect([side.stem_N for side in sides], device)
        self._texts = collect([side.text_CD for side in sides], device)
        starts = iter(zip(_starts([side.stem_N for side in sides]), _starts([s.text_CD for s in sides]), strict=True))
        self._starts = [list(islice(starts, 2 if task.mirror else 1)) for task in tasks]
        """First rows of photos and texts of each task, for its own side and its mirrored side."""
        heads = [task.text_CD[list(range(count))] for task, count in zip(tasks, self.classes, strict=True)]
        self._heads_KCD = pad_sequence(heads, batch_first=True).to(device)
        self._classes_K = torch.tensor(self.classes, device=device)

    def tables(self, steps: Sequence[Sequence[Pair]], width: int = 0) -> list[Shown]:
        """Return the inputs of an epoch's steps.

        width: N of every step, or 0 for the size of each step's largest batch.
        """
        tables = [self._table(pairs, width) for pairs in steps]
        if not self.resident:
            return tables
        numbers = iter(_copied([tensor for table in tables for tensor in table.tensors[:3]], self.device))
        flags = iter(_copied([tensor for table in tables for tensor in table.tensors[3:]], self.device))
        return [Shown(table.pairs, *islice(numbers, 3), *islice(flags, 2)) for table in tables]

    def _table(self, pairs: Sequence[Pair], width: int) -> Shown:
        width = width or max(len(batch.photos) for _, batch in pairs if batch)
        rows = [self._rows(task, batch or Batch([0] * width, [0] * width)) for task, batch in pairs]
        padded = torch.tensor([[*own, *own[:1] * (width - len(own))] for own in rows])
        photos_TN, texts_TN = padded.permute(2, 0, 1).contiguous()
        real_TN = torch.tensor([[n < len(own) for n in range(width)] for own in rows])
        learning = {task for task, batch in pairs if batch}
        active_K = torch.tensor([task in learning for task in range(len(self.classes))])
        tasks_T = torch.tensor([task for task, _ in pairs])
        return Shown(pairs, photos_TN, texts_TN, tasks_T, real_TN, active_K)

    def _rows(self, task: int, batch: Batch) -> list[tuple[int, int]]:
        """Return the photo and text row of each position in a batch."""
        starts = self._starts[task]
        turned = set(batch.mirrored if len(starts) > 1 else ())
        places = enumerate(zip(batch.photos, batch.texts, strict=True))
        return [(starts[n in turned][0] + photo, starts[n in turned][1] + text) for n, (photo, text) in places]

    def gather(self, shown: Shown, hide: Hide | None = None) -> tuple[Tensor, Tensor]:
        """Return stems (T, N, L..) and texts (T, N, D) on the device."""
        stem_TN, text_TND = self._stems[shown.photos_TN], self._texts[shown.texts_TN]
        if hide:
            parts = zip(stem_TN, shown.pairs, strict=True)
            stem_TN = torch.stack([_hidden(stem_N, batch, hide) for stem_N, (_, batch) in parts if batch])
        return stem_TN.to(self.device), text_TND.to(self.device)

    def heads(self, shown: Shown) -> tuple[Tensor, Tensor]:
        """Return the classes of a step's tasks (T, C, D), and which of them are real (T, C).

        On the device, C is the same for every step, so that a step can be recorded.
        """
        most = max(self.classes if self.resident else (self.classes[task] for task, _ in shown.pairs))
        tasks_T = shown.tasks_T.to(self.device)
        real_TC = torch.arange(most, device=self.device) < self._classes_K[tasks_T][:, None]
        return self._heads_KCD[:, :most][tasks_T], real_TC


def bytes_of(tasks: Sequence[AnyTask]) -> int:
    """Return the size in bytes of a stack of these tasks on its device."""
    sides = [side for task in tasks for side in (task, task.mirror) if side]
    return sum(prod(rows.shape) * rows.dtype.itemsize for side in sides for rows in (side.stem_N, side.text_CD))


def _starts(parts: Sequence[Rows]) -> list[int]:
    return list(accumulate((len(part) for part in parts), initial=0))[:-1]


def _together(parts: Sequence[Rows], device: torch.device) -> Tensor:
    """Concatenate tensors on the device, reading only one of them at a time."""
    first = parts[0][[0]]
    whole = torch.empty((sum(map(len, parts)), *first.shape[1:]), dtype=first.dtype, device=device)
    for start, part in zip(_starts(parts), parts, strict=True):
        whole[start : start + len(part)] = part.to(device)
    return whole


class _Apart:
    """Concatenated tensors that stay where they are, in memory or on disk."""

    def __init__(self, parts: Sequence[Rows], device: torch.device) -> None:
        self.parts, self.starts = parts, torch.tensor(_starts(parts))

    def __getitem__(self, rows_TN: Tensor) -> Tensor:
        rows = rows_TN.flatten()
        part_of = torch.bucketize(rows, self.starts, right=True) - 1
        found: list[Tensor] = []
        places = []
        for part in part_of.unique().tolist():
            places.append((part_of == part).nonzero()[:, 0])
            found.append(self.parts[part][(rows[places[-1]] - self.starts[part]).tolist()])
        return torch.cat(found)[torch.cat(places).argsort()].unflatten(0, rows_TN.shape)


def _copied(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copy tensors of one type to the device in one transfer."""
    parts = torch.cat([tensor.flatten() for tensor in tensors]).to(device).split([t.numel() for t in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _hidden(stem_N: Tensor, batch: Batch, hide: Hide) -> Tensor:
    """Hide tokens of stems. The batch seeds the random generator, so that a task trains as it would alone."""
    kept = hide(stem_N[: len(batch.photos)], torch.Generator().manual_seed(batch.seed))
    return kept[[*range(len(kept)), *[0] * (len(stem_N) - len(kept))]]
