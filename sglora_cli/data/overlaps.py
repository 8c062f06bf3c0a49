"""Find photos that several tasks share, in particular test photos that a pack would train on.

A photo is identified by the hash of its file's bytes, so a copy under another name is the same photo. The same picture
in another size or format counts as a different photo. near_duplicates.py finds those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile
from sglora_cli.files.hashes import file_hash
from sglora_cli.plugin.values import SPLITS, TRAIN, UNSEEN, Task
from sglora_cli.system.display import counted


@dataclass(frozen=True)
class Side:
    """One split of a recipe's task: the photos that it is trained on ("train") or tested on ("test")."""

    task: str
    role: str
    split: str
    photos: frozenset[str]
    """Hashes of the photos' bytes."""

    def __str__(self) -> str:
        return f"{self.role} {self.task} ({self.split})"


@dataclass(frozen=True)
class Overlap:
    """Photos that two sides share."""

    kind: str
    """"leak" if one trains on photos that an unseen task is tested on, "train" if both train on them, "test" if both
    are tested on them."""
    first: Side
    second: Side
    photos: int

    def __str__(self) -> str:
        return f"{counted(self.photos, 'photo')}: {self.first} and {self.second}"

    def to_json(self) -> dict[str, Any]:
        sides = [{"task": side.task, "role": side.role, "split": side.split} for side in (self.first, self.second)]
        return {"kind": self.kind, "sides": sides, "photos": self.photos}


def sides_of(planned: Mapping[str, Sequence[Task]]) -> list[Side]:
    """Return the sides of tasks, given by role. Reads the bytes of every photo and skips unreadable photos."""
    hash_of = cache(_hash)
    return [
        Side(task.name, role, split, frozenset(filter(None, (hash_of(photo.path) for photo in task.photos[split]))))
        for role, tasks in planned.items()
        for task in tasks
        for split in SPLITS
        if task.photos.get(split)
    ]


def _hash(path: Path) -> str:
    with suppress(BadFile):
        return file_hash(path)
    return ""


def overlaps(sides: Sequence[Side]) -> list[Overlap]:
    """Return all pairs of sides that share a photo, leaks first, then by the number of shared photos.

    The test side of a seen task is ignored, because nothing is tested on it.
    """
    owners: dict[str, list[int]] = defaultdict(list)
    for n, side in enumerate(sides):
        if side.split == TRAIN or side.role == UNSEEN:
            for photo in side.photos:
                owners[photo].append(n)
    shared: dict[tuple[int, int], int] = defaultdict(int)
    for numbers in owners.values():
        for pair in combinations(numbers, 2):
            shared[pair] += 1
    found = [Overlap(_kind(sides[i], sides[j]), sides[i], sides[j], count) for (i, j), count in shared.items()]
    return sorted(found, key=lambda one: (KINDS.index(one.kind), -one.photos, one.first.task, one.second.task))


KINDS = ("leak", *SPLITS)
SAID = {"leak": "trained and tested on", "train": "trained on twice", "test": "tested on twice"}
"""Labels of the kinds in a list."""


def _kind(first: Side, second: Side) -> str:
    return first.split if first.split == second.split else "leak"


def overlap_lines(found: Sequence[Overlap]) -> list[str]:
    """Describe the shared photos in sentences, with the number of distinct photos and of tasks."""
    learned = [one for one in found if one.kind == "train"]
    mixed = [one for one in learned if (one.first.role == UNSEEN) != (one.second.role == UNSEEN)]
    said = (
        ("used to train a task and to test an unseen task", [one for one in found if one.kind == "leak"]),
        ("used to train several tasks", learned),
        ("used to train a seen and an unseen task", mixed),
        ("used to test several unseen tasks", [one for one in found if one.kind == "test"]),
    )
    return [
        f"{counted(len(_photos(some)), 'photo')} {text} ({counted(len(_tasks(some)), 'task')})"
        for text, some in said
        if some
    ]


def _photos(some: Iterable[Overlap]) -> frozenset[str]:
    return frozenset().union(*(one.first.photos & one.second.photos for one in some))


def _tasks(some: Iterable[Overlap]) -> set[str]:
    return {side.task for one in some for side in (one.first, one.second)}
