"""The tasks of a build: what each learns from, and what it is tested on, which nothing may learn from.

A photo can belong to several tasks, and lie in several files. What counts is its content.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sglora_cli.data import overlaps
from sglora_cli.data.encode import check_text
from sglora_cli.data.features import Features, StoredTask
from sglora_cli.data.overlaps import Side
from sglora_cli.errors import BadFile
from sglora_cli.files.hashes import file_hash
from sglora_cli.pack.content.manifest import check_printable
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.values import TEST, TRAIN, UNSEEN, Photo, Task
from sglora_cli.system.progress import progress


@dataclass(frozen=True)
class BuildTask:
    """A task with its role, and the features of the photos it learns from and is measured on."""

    task: Task
    role: str
    train: Features
    test: Features | None
    """None if nothing is measured on the task."""
    mirror: Features | None = None
    """The same photos mirrored, for training with `mirror`; else None."""
    left_out: tuple[str, ...] = ()
    """Hashes of the task's photos that it does not learn from, because an unseen task is tested on them."""

    @property
    def photos(self) -> Sequence[Photo]:
        """The photos that the task is trained on."""
        return self.train.photos

    def stored(self, model: Model) -> StoredTask:
        """The features that the task is trained on, on disk."""
        mirror = self.mirror.stored(model) if self.mirror else None
        return replace(self.train.stored(model), mirror=mirror)

    def to_json(self) -> dict[str, Any]:
        """As a pack lists it."""
        return {
            "key": self.task.key,
            "dataset": self.task.dataset,
            "name": self.task.name,
            "role": self.role,
            "description": self.task.description,
            "train_photos": len(self.photos),
            "test_photos": len(self.task.photos["test"]),
            **({"left_out": len(self.left_out)} if self.left_out else {}),
        }


def missing_features(tasks: Sequence[BuildTask]) -> list[Features]:
    """The features that are not in the cache."""
    wanted = [features for t in tasks for features in (t.train, t.mirror, t.test) if features]
    return [features for features in wanted if not features.path.exists()]


def build_tasks(
    model: Model,
    plan: Sequence[Mapping[str, Sequence[Task]]],
    prompts: Sequence[str] = (),
    mirror: bool = False,
    apart: Sequence[Photo] = (),
) -> list[BuildTask]:
    """Make the tasks of a plan (role -> tasks, of each source). Reads the bytes of every photo.

    No task learns from a photo that an unseen task is tested on, or one of `apart`. Raises BadFile for a task with
    fewer than two training photos, Mismatch for a description that would be cut.
    """
    planned = [(role, task) for roles in plan for role, tasks in roles.items() for task in tasks]
    for _, task in planned:
        check_text(model, task.description)
        hint = "rename the task or its classes in the data set"
        check_printable(task.description, f"the description of task {task.key}", hint)
        if len(task.photos[TRAIN]) < 2:
            raise BadFile(f"task {task.key} has {len(task.photos[TRAIN])} training photo(s), it needs two", "remove it")
    built = []
    for role, task in progress(planned, "reading photos"):
        train = Features.of(model, task.key, task.photos[TRAIN], task.classes, prompts)
        test = Features.of(model, task.key, task.photos[TEST], task.classes, prompts) if role == UNSEEN else None
        built.append(BuildTask(task, role, train, test if test and test.photos else None))
    tested = {photo for t in built if t.test for photo in t.test.hashes} | {file_hash(photo.path) for photo in apart}
    return [_trained_without(model, t, tested, mirror) for t in built]


def _trained_without(model: Model, t: BuildTask, tested: Container[str], mirror: bool) -> BuildTask:
    """The task without photos that something is tested on. Raises BadFile if fewer than two are left to learn from."""
    train = t.train.without(model, tested)
    if len(train.photos) < 2:
        raise BadFile(
            f"task {t.task.key} has {len(t.photos)} training photos, and unseen tasks are tested on all but "
            f"{len(train.photos)} of them: it needs two",
            "remove it, or the unseen task that it shares them with",
        )
    left_out = tuple(photo for photo in t.train.hashes if photo in tested)
    return replace(t, train=train, mirror=train.mirror() if mirror else None, left_out=left_out)


def _sides(tasks: Sequence[BuildTask]) -> list[Side]:
    """The photos of every task of a build by what they are for: those that are learned, and those that are tested."""
    sides = []
    for t in tasks:
        sides.append(Side(t.task.key, t.role, TRAIN, frozenset(t.train.hashes)))
        if t.test:
            sides.append(Side(t.task.key, t.role, TEST, frozenset(t.test.hashes)))
    return sides


def overlap_lines(tasks: Sequence[BuildTask]) -> list[str]:
    """What the tasks of a build share, and what is left out of training for it, in sentences."""
    left_out = [t for t in tasks if t.left_out]
    photos = {photo for t in left_out for photo in t.left_out}
    line = f"left out of training: {len(photos)} photos of {len(left_out)} tasks: unseen tasks are tested on them"
    return [*([line] if photos else []), *overlaps.overlap_lines(overlaps.overlaps(_sides(tasks)))]
