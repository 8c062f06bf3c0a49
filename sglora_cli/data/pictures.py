"""The image files of a data set, each looked at once, and those that are alike: byte for byte, or to the eye."""

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
    """An image file that was looked at. One file may belong to several tasks."""

    name: str
    path: Path
    places: tuple[tuple[str, str], ...]
    """Every (task, split) it is in, as often as it is named there."""
    size: tuple[int, int] = (0, 0)
    """Width and height."""
    hash: int | None = None
    """Perceptual hash; None if it could not be read, or nothing hashes."""
    error: SgloraError | None = None
    """Why it could not be read."""
    frames: bool = False
    """Whether it is the first picture of several."""
    plain: bool = False
    """Whether all its pixels have one colour."""
    digest: str = ""
    """Hash of its bytes; "" if it could not be read."""

    @property
    def reason(self) -> str:
        """Why it could not be read, without its name; "" if it could."""
        message = self.error.message if self.error else ""
        return message.removeprefix("image ").removeprefix(str(self.path)).strip()


@dataclass(frozen=True)
class Pair:
    """Two images that are alike, or one that is named twice."""

    kind: str
    """"copies", "splits", "tasks" or "within": what they are and lie across, the gravest first."""
    first: Picture
    second: Picture
    distance: int
    """Bits in which their perceptual hashes differ, of 64."""

    @property
    def equal(self) -> bool:
        """Whether they are equal byte for byte."""
        return self.first is self.second or bool(self.first.digest and self.first.digest == self.second.digest)

    @property
    def how(self) -> str:
        """How alike they are, in words."""
        return "one file" if self.first is self.second else "equal bytes" if self.equal else f"{self.distance} bits"


def look_at(tasks: Sequence[Task], root: Path) -> dict[Path, Picture]:
    """Every image file of the tasks, decoded once. Without imagehash it warns: near-identical ones are not found."""
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
        warnings.warn(f"near-identical images are not looked for: {error.message} ({error.hint})", SgloraWarning, 3)
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
    """An image's path below the data set's folder; its whole path if it lies elsewhere."""
    full, folder = path.resolve(), root.resolve()
    return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(path)


def alike(pictures: Sequence[Picture], distance: int) -> Iterator[Pair]:
    """Files that are in several splits or twice in one, then every two that are equal, then those that look alike."""
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
