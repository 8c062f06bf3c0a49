"""Photos -> tasks, and the choices all layouts share: names, splits, whether an image is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from sglora_cli.api import (
    CAPTIONS_JSONL,
    SPLITS,
    BadFile,
    Captioned,
    Listed,
    NamedOnce,
    Photo,
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


def listed(root: Path, rows: Iterable[Row]) -> list[Listed]:
    """Every image of the lists. Raises BadFile for one that is not there, or is named twice."""
    return [Listed(row.image, _place(root, row), (row.task,), row.split) for row in once(root, rows)]


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


def captioned(root: Path, rows: Iterable[Row], captions: dict[str, Captioned]) -> list[tuple[str, str, Photo]]:
    """(task, split, photo) of every image that has captions.

    Raises BadFile if one of them is not there or is listed twice, if a caption's image is in no list, or if no image
    has any.
    """
    photos = [
        (row.task, row.split, Photo(_place(root, row), one.captions))
        for row in once(root, rows)
        if (one := captions.pop(row.image, None)) is not None
    ]
    for one in captions.values():
        raise BadFile(f"{one.where}: no list names image {one.image!r}")
    if not photos:
        raise BadFile(f"{root}: no listed image has a caption")
    return photos


def not_captioned(root: Path, rows: Iterable[Row], folder: str) -> Iterator[tuple[str, str]]:
    """What a layout with lists passes over: listed images without captions, and images of its folder in no list."""
    path = find_captions(root)
    has_captions = {one.image for one in read_captions(path, ("image",))} if path else set()
    images = {row.image for row in rows}
    yield from ((image, "listed images without captions") for image in sorted(images - has_captions))
    known = {image.removeprefix(f"{folder}/") for image in images}
    others = other_images(root / folder, known, "images that no list names")
    yield from ((f"{folder}/{name}", reason) for name, reason in others)


def _place(root: Path, row: Row) -> Path:
    folder, _, name = row.image.partition("/")
    if fault := "leads out of its folder" if folder == ".." else name_fault(row.image):
        raise BadFile(f"{row.where}: {row.image[:100]!r} {fault}", "name files of the data set")
    return existing(root / folder, name, row.where)  # the folder itself may be a link


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
        raise BadFile(f"{where}: image {image} does not exist", "write / between folders" if "\\" in name else "")
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
