"""The tasks of a build: the photos that each learns from, and the test photos that none may learn from.

A photo can belong to several tasks and be in several files, so photos are compared by content.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sglora_cli.data import overlaps
from sglora_cli.data.encode import check_text
from sglora_cli.data.features import Features, StoredTask
from sglora_cli.data.overlaps import Side
from sglora_cli.data.refusals import Refused, needed, photo_hashes, undecodable, wrong_photos
from sglora_cli.files.hashes import file_hash
from sglora_cli.pack.recipe_parser import Faults
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.values import TEST, TRAIN, UNSEEN, Photo, Task


@dataclass(frozen=True)
class BuildTask:
    """A task with its role, and the features of the photos it learns from and is measured on."""

    task: Task
    role: str
    train: Features
    test: Features | None
    """None if the task is not measured."""
    mirror: Features | None = None
    """The mirrored photos for training with `mirror`, or None."""
    left_out: tuple[str, ...] = ()
    """Hashes of the task's photos that it does not learn from, because an unseen task is tested on them."""

    @property
    def photos(self) -> Sequence[Photo]:
        """The photos that the task is trained on."""
        return self.train.photos

    def stored(self, model: Model) -> StoredTask:
        """Return the stored features that the task is trained on."""
        mirror = self.mirror.stored(model) if self.mirror else None
        return replace(self.train.stored(model), mirror=mirror)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the task in a pack's list."""
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
    """Return the features that are not in the cache."""
    wanted = [features for t in tasks for features in (t.train, t.mirror, t.test) if features]
    return [features for features in wanted if not features.path.exists()]


def build_tasks(
    model: Model,
    plan: Sequence[Mapping[str, Sequence[Task]]],
    prompts: Sequence[str] = (),
    mirror: bool = False,
    apart: Sequence[Photo] = (),
) -> list[BuildTask]:
    """Create the tasks of a plan (role -> tasks, for each source). Reads all photos.

    Photos without cached features are decoded, so that a broken one is reported before anything is computed.
    No task learns from a photo that an unseen task is tested on or that is in `apart`.
    Raises one error for all invalid photos, and Mismatch for a description that would be truncated.
    """
    planned = [(role, task) for roles in plan for role, tasks in roles.items() for task in tasks]
    for _, task in planned:
        check_text(model, task.description)
    hash_of, broken = photo_hashes(photo.path for role, task in planned for photo in needed(role, task))
    waiting: list[Path] = []
    for role, task in planned:
        for split in (TRAIN, TEST) if role == UNSEEN else (TRAIN,):
            photos = [photo for photo in task.photos[split] if photo.path in hash_of]
            if not _features(model, task, photos, prompts, hash_of).path.exists():
                waiting += [photo.path for photo in photos]
    broken |= undecodable(waiting)
    elsewhere = {file_hash(photo.path) for photo in apart}
    _refuse(wrong_photos(planned, hash_of, broken, elsewhere))
    built = []
    for role, task in planned:
        train = _features(model, task, task.photos[TRAIN], prompts, hash_of)
        test = _features(model, task, task.photos[TEST], prompts, hash_of) if role == UNSEEN else None
        built.append(BuildTask(task, role, train, test if test and test.photos else None))
    tested = {photo for t in built if t.test for photo in t.test.hashes} | elsewhere
    return [_trained_without(model, t, tested, mirror) for t in built]


def _refuse(refused: Iterable[Refused]) -> None:
    """Raise everything that was rejected as one error, if there is anything."""
    faults = Faults()
    faults.collect(one.error for one in refused)
    faults.refuse()


def _features(
    model: Model, task: Task, photos: Sequence[Photo], prompts: Sequence[str], hash_of: Mapping[Path, str]
) -> Features:
    hashes = [hash_of[photo.path] for photo in photos]
    return Features.of(model, task.key, photos, task.classes, prompts, hashes)


def _trained_without(model: Model, t: BuildTask, tested: Container[str], mirror: bool) -> BuildTask:
    """Return the task without photos that another task is tested on."""
    train = t.train.without(model, tested)
    left_out = tuple(photo for photo in t.train.hashes if photo in tested)
    return replace(t, train=train, mirror=train.mirror() if mirror else None, left_out=left_out)


def _sides(tasks: Sequence[BuildTask]) -> list[Side]:
    """Return the photos of every task by their use: training or testing."""
    sides = []
    for t in tasks:
        sides.append(Side(t.task.key, t.role, TRAIN, frozenset(t.train.hashes)))
        if t.test:
            sides.append(Side(t.task.key, t.role, TEST, frozenset(t.test.hashes)))
    return sides


def overlap_lines(tasks: Sequence[BuildTask]) -> list[str]:
    """Describe photos that tasks share, and photos left out of training, as sentences."""
    left_out = [t for t in tasks if t.left_out]
    photos = {photo for t in left_out for photo in t.left_out}
    line = (
        f"left out of training: {len(photos)} photos of {len(left_out)} tasks, because unseen tasks are tested on them"
    )
    return [*([line] if photos else []), *overlaps.overlap_lines(overlaps.overlaps(_sides(tasks)))]
