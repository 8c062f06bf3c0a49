"""Read each image file of a data set once, and find equal and near-identical images."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sglora_cli.data.ahead import ahead
from sglora_cli.data.near_duplicates import hasher, near_pairs
from sglora_cli.errors import BadFile, SgloraError, SgloraWarning, Unavailable
from sglora_cli.files.hashes import file_hash
from sglora_cli.files.images import has_more_frames, read_image
from sglora_cli.plugin.values import Task
from sglora_cli.system.progress import progress

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Picture:
    """An image file and what was read from it. One file may belong to several tasks."""

    name: str
    path: Path
    places: tuple[tuple[str, str], ...]
    """Every (task, split) that contains the file, once per listing."""
    size: tuple[int, int] = (0, 0)
    """Width and height in pixels."""
    hash: int | None = None
    """Perceptual hash; None if the file cannot be read or imagehash is not installed."""
    error: SgloraError | None = None
    """Why the file cannot be read, or None."""
    frames: bool = False
    """Whether the file has several frames."""
    plain: bool = False
    """Whether all pixels have the same colour."""
    digest: str = ""
    """Hash of the file's bytes; "" if it cannot be read."""

    @property
    def reason(self) -> str:
        """Why the file cannot be read, without its name; "" if it can."""
        message = self.error.message if self.error else ""
        return message.removeprefix("image ").removeprefix(str(self.path)).strip()


@dataclass(frozen=True)
class Pair:
    """Two images that are alike, or one that is listed twice."""

    kind: str
    """"copies" (equal, across splits), or near-identical across "splits", across "tasks" or "within" a task and split.
    """
    first: Picture
    second: Picture
    distance: int
    """Number of bits, of 64, in which the perceptual hashes differ."""

    @property
    def equal(self) -> bool:
        """Whether the files are equal byte for byte."""
        return self.first is self.second or bool(self.first.digest and self.first.digest == self.second.digest)

    @property
    def how(self) -> str:
        """How alike the images are, in words."""
        return "same file" if self.first is self.second else "equal bytes" if self.equal else f"{self.distance} bits"


def look_at(tasks: Sequence[Task], root: Path) -> dict[Path, Picture]:
    """Decode every image file of the tasks once. Warns if near-identical images are not found without imagehash."""
    places: dict[Path, list[tuple[str, str]]] = {}
    for task in tasks:
        for split, photos in task.photos.items():
            for photo in photos:
                places.setdefault(photo.path, []).append((task.name, split))
    waiting = [Picture(_name(root, path), path, tuple(own)) for path, own in places.items()]
    looked = ahead(partial(_looked_at, _hasher()), waiting)
    return {picture.path: next(looked) for picture in progress(waiting, "images")}


def _hasher() -> Callable[[Image], int | None]:
    try:
        return hasher()
    except Unavailable as error:
        warnings.warn(f"near-identical images are not detected: {error.message} ({error.hint})", SgloraWarning, 3)
        return lambda image: None


def _looked_at(hash_of: Callable[[Image], int | None], picture: Picture) -> Picture:
    try:
        image, digest = read_image(picture.path), file_hash(picture.path)
    except BadFile as error:
        return replace(picture, error=error)
    plain = image.getcolors(1) is not None
    frames = has_more_frames(picture.path)
    return replace(picture, size=image.size, hash=hash_of(image), digest=digest, plain=plain, frames=frames)


def _name(root: Path, path: Path) -> str:
    """Return an image's path relative to the data set's folder, or its full path if it is outside."""
    full, folder = path.resolve(), root.resolve()
    return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(path)


def alike(pictures: Sequence[Picture], distance: int) -> Iterator[Pair]:
    """Yield files that are in several splits or twice in one, then pairs of equal files, then near-identical pairs."""
    for picture in pictures:
        if len({split for _, split in picture.places}) > 1:
            yield Pair("copies", picture, picture, 0)
        elif len(set(picture.places)) < len(picture.places):
            yield Pair("within", picture, picture, 0)
    same: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        if picture.digest:
            same[picture.digest].append(picture)
    for equal in same.values():
        for first, second in combinations(equal, 2):
            across = _across(first, second)
            yield Pair("copies" if across == "splits" else across, first, second, 0)
    read = [(picture, picture.hash) for picture in pictures if picture.hash is not None]
    hashes_N = np.array([hash_ for _, hash_ in read], dtype=np.uint64)
    for i, j, apart in near_pairs(hashes_N, distance):
        pair = Pair(_across(read[i][0], read[j][0]), read[i][0], read[j][0], apart)
        if not pair.equal:
            yield pair


def _across(first: Picture, second: Picture) -> str:
    if len({split for _, split in first.places + second.places}) > 1:
        return "splits"
    same = {task for task, _ in first.places} == {task for task, _ in second.places}
    return "within" if same else "tasks"
