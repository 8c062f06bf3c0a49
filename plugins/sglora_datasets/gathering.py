"""Photos -> tasks, and the choices all layouts share: names, splits, whether an image is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from sglora_cli.api import BadFile, Photo, Task, inside

from .captions import SPLITS


def gathered(root: Path, photos: Iterable[tuple[str, str, Photo]]) -> list[Task]:
    """Tasks of (task, split, photo), sorted by name; a description is still the plain name."""
    found: dict[str, dict[str, list[Photo]]] = {}
    for task, split, photo in photos:
        found.setdefault(task, {split: [] for split in SPLITS})[split].append(photo)
    return [Task(root.name, name, name, found[name]) for name in sorted(found)]


def existing(root: Path, name: str, where: str) -> Path:
    """The path of an image below root. Raises BadFile, saying where it was named, if it is not there."""
    image = inside(root, name)
    if not image.is_file():
        raise BadFile(f"{where}: image {image} does not exist")
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
