"""Rules for tasks and photos that a build refuses, shared by `pack build` and `data check --recipe`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.data.ahead import ahead
from sglora_cli.data.check_rules import normal
from sglora_cli.errors import BadFile, Mismatch, SgloraError
from sglora_cli.files.hashes import file_hash
from sglora_cli.files.images import read_image
from sglora_cli.files.toml import Address
from sglora_cli.plugin.values import TEST, TRAIN, UNSEEN, Photo, Task
from sglora_cli.system.display import counted
from sglora_cli.system.progress import progress

Planned = Sequence[tuple[str, Task]]
"""Tasks with their roles and the photos that a recipe assigns to them."""
_LISTED = 20
"""The most photos to name in one error."""
_ADD = "add some, or leave the task out of the recipe"


@dataclass(frozen=True)
class Refused:
    """A reason why a build refuses a task, a photo or a recipe."""

    kind: str
    """"absent", "empty" or "broken", as in `check_rules`; "partial" for a note that explains others; else "refused"."""
    error: SgloraError
    task: str = ""
    address: Address = ()
    """The recipe key that it refers to; () if it refers to the data."""


def needed(role: str, task: Task) -> Iterator[Photo]:
    """Yield the photos of a task that a build reads: its training photos, and the test photos of an unseen task."""
    yield from task.photos.get(TRAIN, ())
    if role == UNSEEN:
        yield from task.photos.get(TEST, ())


def wrong_tasks(planned: Planned) -> Iterator[Refused]:
    """Find problems of tasks that can be detected without reading a photo."""
    for role, task in planned:
        if (count := len(task.photos.get(TRAIN, ()))) < 2:
            text = f"task {task.key} has {counted(count, 'training photo')}, at least two are needed"
            yield Refused("refused", BadFile(text, _ADD), task.name)
        photos = list(needed(role, task))
        if empty := [photo for photo in photos if not photo.captions or not all(map(normal, photo.captions))]:
            photos_without = f"{counted(len(empty), 'photo')} with a missing or empty caption"
            text = f"task {task.key} has {photos_without}, such as {empty[0].path}"
            yield Refused("empty", BadFile(text, "write captions for them, or remove them"), task.name)
        captions = {caption for photo in photos for caption in photo.captions}
        if task.classes and (stray := sorted(captions - set(task.classes))):
            text = f"task {task.key!r} has a photo of class {stray[0]!r}, but its classes are {', '.join(task.classes)}"
            yield Refused("refused", Mismatch(text), task.name)


def wrong_photos(
    planned: Planned, hash_of: Mapping[Path, str], broken: Mapping[Path, SgloraError], apart: Collection[str] = ()
) -> list[Refused]:
    """Find broken photos of tasks. If there are none, find tasks that have too few photos left to train on.

    hash_of: the hash of each photo's bytes.  apart: hashes of photos to exclude from training, in addition to the test
    photos of unseen tasks.
    """
    owner: dict[Path, Task] = {}
    for role, task in planned:
        for photo in needed(role, task):
            if photo.path in broken:
                owner.setdefault(photo.path, task)
    if owner:
        found = [Refused("broken", broken[path], task.name) for path, task in owner.items()]
        more = BadFile(f"{len(found) - _LISTED} more photos of these tasks cannot be read")
        return [*found[:_LISTED], *([Refused("broken", more)] if len(found) > _LISTED else [])]
    tested = {hash_of[photo.path] for role, task in planned if role == UNSEEN for photo in task.photos.get(TEST, ())}
    tested |= set(apart)
    return [
        Refused(
            "refused",
            BadFile(
                f"task {task.key} has {counted(len(task.photos[TRAIN]), 'training photo')}, "
                f"but unseen tasks are tested on all but {left} of them, and at least two must be left",
                "remove this task, or the unseen task that shares its photos",
            ),
            task.name,
        )
        for _, task in planned
        if (left := sum(hash_of[photo.path] not in tested for photo in task.photos[TRAIN])) < 2
    ]


def photo_hashes(paths: Iterable[Path]) -> tuple[dict[Path, str], dict[Path, SgloraError]]:
    """Return the hash of each photo's bytes, and the errors of photos that cannot be read."""
    every = list(dict.fromkeys(paths))
    results = ahead(_hash, every)
    hash_of, broken = {}, {}
    for path in progress(every, "reading photos"):
        found = next(results)
        if isinstance(found, str):
            hash_of[path] = found
        else:
            broken[path] = found
    return hash_of, broken


def undecodable(paths: Iterable[Path]) -> dict[Path, SgloraError]:
    """Return the errors of photos that cannot be decoded."""
    every = list(dict.fromkeys(paths))
    results = ahead(_fault, every)
    faults = ((path, next(results)) for path in progress(every, "decoding photos"))
    return {path: fault for path, fault in faults if fault}


def _hash(path: Path) -> str | SgloraError:
    try:
        return file_hash(path)
    except BadFile as error:
        return _fault(path) or error


def _fault(path: Path) -> SgloraError | None:
    try:
        read_image(path)
    except BadFile as error:
        return error
    return None
