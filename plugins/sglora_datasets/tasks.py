"""Build tasks from photos, with rules shared by all layouts: names, splits, and missing images."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, NoReturn

from sglora_cli.api import (
    CAPTIONS_JSONL,
    SPLITS,
    BadFile,
    Captioned,
    Listed,
    NamedOnce,
    Photo,
    SgloraError,
    Task,
    Unavailable,
    find_captions,
    inside,
    name_fault,
    other_images,
    read_captions,
    shell_word,
)


class Row(NamedTuple):
    """An image named by a layout's list. `image` is FOLDER/FILE relative to the data set's folder."""

    image: str
    task: str
    split: str
    where: str
    """Path and line of the list, for error messages."""


def listed(root: Path, rows: Iterable[Row], name: str) -> list[Listed]:
    """Return every listed image that exists. `name` is the data set's.

    Raises BadFile for an image named twice, Unavailable if none exists.
    """
    named = [(row, _place(root, row)) for row in once(root, rows)]
    there = [Listed(row.image, path, (row.task,), row.split) for row, path in named if path.is_file()]
    return there or none_there(root, len(named), name)


def none_there(root: Path, named: int, name: str) -> NoReturn:
    """Raise Unavailable for a data set without any of its images."""
    raise Unavailable(
        f"{root} has none of the {named} images named in its lists",
        f"`sglora data fetch {shell_word(name)}` downloads them into the data folder",
    )


def counted(root: Path, rows: Iterable[Row]) -> tuple[int, int]:
    """Return how many listed images exist, and how many are listed."""
    there = [_place(root, row).is_file() for row in rows]
    return sum(there), len(there)


def is_complete(root: Path, rows_of: Callable[[Path], Iterable[Row]]) -> bool:
    """Return whether the lists of a data set and all images named in them exist."""
    try:
        here, named = counted(root, rows_of(root))
    except SgloraError:
        return False
    return here == named > 0


def once(root: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows. Raises BadFile if two rows have the same image."""
    named = NamedOnce(root)
    for row in rows:
        named.add(row.image, row.where)
        yield row


def layout_captions(root: Path, name: str, images: str) -> dict[str, Captioned]:
    """Map image -> captions, for a layout that has images and classes but no captions.

    name: the data set's.  images: an example path of an image, for the hint.
    Raises Unavailable if there is no captions file.
    """
    path = find_captions(root)
    if path is None:
        raise Unavailable(
            f"{root / CAPTIONS_JSONL} does not exist, and this data set has no built-in captions",
            f"write captions first with: sglora data caption {name} --path {shlex.quote(str(root))}, "
            f'or write a line for each image: {{"image": "{images}", "captions": ["...", "..."]}}',
        )
    return {one.image: one for one in read_captions(path, ("image",))}


def captioned(
    root: Path, rows: Iterable[Row], captions: dict[str, Captioned], name: str
) -> list[tuple[str, str, Photo]]:
    """Return (task, split, photo) of every image that exists and has captions. `name` is the data set's.

    Raises BadFile if an image is listed twice, if a captioned image is not listed, or if no image has captions, and
    Unavailable if no image exists.
    """
    named = [(row, _place(root, row)) for row in once(root, rows)]
    there = {row.image for row, path in named if path.is_file()} or none_there(root, len(named), name)
    texts = {row.image: captions.pop(row.image, None) for row, _ in named}
    for stray in captions.values():
        raise BadFile(f"{stray.where}: image {stray.image!r} is not in any list")
    photos = [
        (row.task, row.split, Photo(path, one.captions))
        for row, path in named
        if row.image in there and (one := texts[row.image]) is not None
    ]
    if not photos:
        raise BadFile(f"{root}: no listed image that exists has a caption")
    return photos


def not_captioned(root: Path, rows: Iterable[Row], folder: str) -> Iterator[tuple[str, str]]:
    """Yield what a layout with lists ignores: listed images without captions, and unlisted images of its folder."""
    path = find_captions(root)
    has_captions = {one.image for one in read_captions(path, ("image",))} if path else set()
    images = {row.image for row in rows}
    waiting = sorted(image for image in images - has_captions if (root / image).is_file())
    yield from ((image, "listed images without captions") for image in waiting)
    known = {image.removeprefix(f"{folder}/") for image in images}
    others = other_images(root / folder, known, "images not in any list")
    yield from ((f"{folder}/{name}", reason) for name, reason in others)


def _place(root: Path, row: Row) -> Path:
    """Return the path of a listed image, existing or not. Raises BadFile for a name that leads outside the data set."""
    folder, _, name = row.image.partition("/")
    if fault := "leads outside its folder" if folder == ".." else name_fault(row.image):
        raise BadFile(f"{row.where}: {row.image[:100]!r} {fault}", "use only names of files in the data set")
    return inside(root / folder, name)  # the folder itself may be a link


_TWO = "a class needs two, so add images or remove the class"


def gathered(root: Path, photos: Iterable[tuple[str, str, Photo]]) -> list[Task]:
    """Return tasks of (task, split, photo), sorted by name. The description of a task is its plain name."""
    by_task: dict[str, dict[str, list[Photo]]] = {}
    for task, split, photo in photos:
        by_task.setdefault(task, {split: [] for split in SPLITS})[split].append(photo)
    return [Task(root.name, name, name, by_task[name]) for name in sorted(by_task)]


def classified(root: Path, source: str, photos: Iterable[tuple[str, str, Photo]]) -> list[Task]:
    """Return classification tasks of (task, split, photo), sorted by name. A photo's only caption is its class.

    Photos of a split alternate between classes, so that the first ones are a balanced sample. Raises BadFile with the
    source for a task with one class, or a class with fewer than two training photos.
    """
    tasks = []
    for task in gathered(root, photos):
        splits: dict[str, list[Photo]] = {}
        classes = sorted({photo.captions[0] for some in task.photos.values() for photo in some})
        if len(classes) < 2:
            raise BadFile(
                f"{source}: classification task {task.name!r} has only one class, {classes[0]!r}",
                "add images of a second class",
            )
        for split, some in task.photos.items():
            by_class: dict[str, list[Photo]] = {name: [] for name in classes}
            for photo in some:
                by_class[photo.captions[0]].append(photo)
            for name, own in by_class.items():
                if split == "train" and len(own) < 2:
                    few = "one training image" if own else "no training image"
                    raise BadFile(f"{source}: class {name!r} of {task.name!r} has {few}", _TWO)
            splits[split] = [photo for turn in zip_longest(*by_class.values()) for photo in turn if photo]
        tasks.append(replace(task, photos=splits, classes=tuple(classes)))
    return tasks


def existing(root: Path, name: str, where: str) -> Path:
    """Return the path of an image below root. Raises BadFile with the place that names it if it does not exist."""
    image = inside(root, name)
    if not image.is_file():
        raise BadFile(
            f"{where}: image {image} does not exist",
            "use / between folders" if "\\" in name else "restore it, or remove the entry that names it",
        )
    return image


def hashed(identity: object) -> str:
    """Return the SHA-256 of an image's name in hexadecimal, for choices that depend on nothing else."""
    return hashlib.sha256(str(identity).encode()).hexdigest()


def split_of(identity: object) -> str:
    """Assign one image in five to testing, independent of other images.

    >>> [split_of(n) for n in range(6)]
    ['test', 'test', 'train', 'train', 'train', 'train']
    """
    return "test" if int(hashed(identity), 16) % 5 == 0 else "train"
