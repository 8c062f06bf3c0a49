"""Photos -> tasks, and the choices all layouts share: names, splits, whether an image is there."""

from __future__ import annotations

import hashlib
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
)


class Row(NamedTuple):
    """An image as a list of a layout names it: `image` is FOLDER/FILE below the data set's folder."""

    image: str
    task: str
    split: str
    where: str
    """Path and line of the list, for errors."""


def listed(root: Path, rows: Iterable[Row], name: str) -> list[Listed]:
    """Every image of the lists that is there. `name` is the data set's.

    Raises BadFile for one that is named twice, Unavailable if none is there.
    """
    named = [(row, _place(root, row)) for row in once(root, rows)]
    there = [Listed(row.image, path, (row.task,), row.split) for row, path in named if path.is_file()]
    return there or none_there(root, len(named), name)


def none_there(root: Path, named: int, name: str) -> NoReturn:
    """Raises Unavailable for a data set none of whose images is there."""
    raise Unavailable(
        f"{root} has none of the {named} images that its lists name",
        f"`sglora data fetch {name}` downloads them into the data folder",
    )


def counted(root: Path, rows: Iterable[Row]) -> tuple[int, int]:
    """How many of the images that lists name are there, and how many they name."""
    there = [_place(root, row).is_file() for row in rows]
    return sum(there), len(there)


def is_complete(root: Path, rows_of: Callable[[Path], Iterable[Row]]) -> bool:
    """Whether the lists of a data set are there, and every image that they name."""
    try:
        here, named = counted(root, rows_of(root))
    except SgloraError:
        return False
    return here == named > 0


def once(root: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows. Raises BadFile for one whose image another names as well."""
    named = NamedOnce(root)
    for row in rows:
        named.add(row.image, row.where)
        yield row


def layout_captions(root: Path, images: str) -> dict[str, Captioned]:
    """Image to its captions, for a layout that has images and classes but no captions of its own.

    images: where they lie below root, for the hint. Raises Unavailable if there is no captions file.
    """
    path = find_captions(root)
    if path is None:
        raise Unavailable(
            f"{root / CAPTIONS_JSONL} does not exist, and this data set has no captions of its own",
            f'write it, one line an image: {{"image": "{images}", "captions": ["...", "..."]}}',
        )
    return {one.image: one for one in read_captions(path, ("image",))}


def captioned(
    root: Path, rows: Iterable[Row], captions: dict[str, Captioned], name: str
) -> list[tuple[str, str, Photo]]:
    """(task, split, photo) of every image that has captions and is there. `name` is the data set's.

    Raises BadFile if an image is listed twice, if a caption's image is in no list, or if no image has any; Unavailable
    if no image is there.
    """
    named = [(row, _place(root, row)) for row in once(root, rows)]
    there = {row.image for row, path in named if path.is_file()} or none_there(root, len(named), name)
    texts = {row.image: captions.pop(row.image, None) for row, _ in named}
    for stray in captions.values():
        raise BadFile(f"{stray.where}: no list names image {stray.image!r}")
    photos = [
        (row.task, row.split, Photo(path, one.captions))
        for row, path in named
        if row.image in there and (one := texts[row.image]) is not None
    ]
    if not photos:
        raise BadFile(f"{root}: no listed image that is there has a caption")
    return photos


def not_captioned(root: Path, rows: Iterable[Row], folder: str) -> Iterator[tuple[str, str]]:
    """What a layout with lists passes over: listed images without captions, and images of its folder in no list."""
    path = find_captions(root)
    has_captions = {one.image for one in read_captions(path, ("image",))} if path else set()
    images = {row.image for row in rows}
    waiting = sorted(image for image in images - has_captions if (root / image).is_file())
    yield from ((image, "listed images without captions") for image in waiting)
    known = {image.removeprefix(f"{folder}/") for image in images}
    others = other_images(root / folder, known, "images that no list names")
    yield from ((f"{folder}/{name}", reason) for name, reason in others)


def _place(root: Path, row: Row) -> Path:
    """Where an image of a list is, or would be. Raises BadFile for a name that leads out of the data set."""
    folder, _, name = row.image.partition("/")
    if fault := "leads out of its folder" if folder == ".." else name_fault(row.image):
        raise BadFile(f"{row.where}: {row.image[:100]!r} {fault}", "name files of the data set")
    return inside(root / folder, name)  # the folder itself may be a link


_TWO = "a class needs two; add some, or leave it out"


def gathered(root: Path, photos: Iterable[tuple[str, str, Photo]]) -> list[Task]:
    """Tasks of (task, split, photo), sorted by name; a description is still the plain name."""
    by_task: dict[str, dict[str, list[Photo]]] = {}
    for task, split, photo in photos:
        by_task.setdefault(task, {split: [] for split in SPLITS})[split].append(photo)
    return [Task(root.name, name, name, by_task[name]) for name in sorted(by_task)]


def classified(root: Path, source: str, photos: Iterable[tuple[str, str, Photo]]) -> list[Task]:
    """Classification tasks of (task, split, photo), whose one caption is the photo's class; sorted by name.

    Photos of a split take turns by class, so that the first of them are a fair sample. Raises BadFile, naming the
    source, for a task with one class, or a class with fewer than two training photos.
    """
    tasks = []
    for task in gathered(root, photos):
        splits: dict[str, list[Photo]] = {}
        classes = sorted({photo.captions[0] for some in task.photos.values() for photo in some})
        if len(classes) < 2:
            raise BadFile(f"{source}: classification task {task.name!r} has one class, {classes[0]!r}", "it needs two")
        for split, some in task.photos.items():
            by_class: dict[str, list[Photo]] = {name: [] for name in classes}
            for photo in some:
                by_class[photo.captions[0]].append(photo)
            for name, own in by_class.items():
                if split == "train" and len(own) < 2:
                    raise BadFile(f"{source}: class {name!r} of {task.name!r} has {len(own)} training image(s)", _TWO)
            splits[split] = [photo for turn in zip_longest(*by_class.values()) for photo in turn if photo]
        tasks.append(replace(task, photos=splits, classes=tuple(classes)))
    return tasks


def existing(root: Path, name: str, where: str) -> Path:
    """The path of an image below root. Raises BadFile, saying where it was named, if it is not there."""
    image = inside(root, name)
    if not image.is_file():
        raise BadFile(
            f"{where}: image {image} does not exist",
            "write / between folders" if "\\" in name else "put it back, or remove what names it",
        )
    return image


def hashed(identity: object) -> str:
    """A number for an image that depends on nothing but what the image is called: SHA-256, in hexadecimal."""
    return hashlib.sha256(str(identity).encode()).hexdigest()


def split_of(identity: object) -> str:
    """One image in five is for testing, whatever other images there are.

    >>> [split_of(n) for n in range(6)]
    ['test', 'test', 'train', 'train', 'train', 'train']
    """
    return "test" if int(hashed(identity), 16) % 5 == 0 else "train"
