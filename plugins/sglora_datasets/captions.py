"""Captions beside images, in captions.jsonl or captions.csv: who is in them, and where each was written.

captions.jsonl has one object a line, one line an image:
{"image": "images/pug_16.jpg", "task": "pug", "split": "train", "captions": ["A pug that ..."]}
An image of a classification task has, instead of captions, the class it is sorted into: "class": "fawn".
captions.csv has the header image,task,split,caption and one row a caption: an image with four captions has four rows.
Of classification tasks it is image,task,split,class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.api import BadFile, Unavailable, csv_rows, jsonl_rows, text_field, texts_field

JSONL, CSV = "captions.jsonl", "captions.csv"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Captioned:
    """An image and its captions. `where` is the path and line, for errors."""

    where: str
    image: str
    """Its path below the data set's folder, as written."""
    captions: tuple[str, ...]
    task: str
    split: str
    has_class: bool = False
    """Whether its one caption is its class: that of a classification task."""


def find_captions(root: Path) -> Path | None:
    """The captions file of a data set; captions.jsonl if both are there."""
    return next((root / name for name in (JSONL, CSV) if (root / name).is_file()), None)


def read_captions(path: Path, keys: tuple[str, ...] = ("image", "task")) -> list[Captioned]:
    """All images of a captions file, in its order; `keys` are the texts a row must have.

    Raises BadFile with path and line for anything wrong, an image named twice included.
    """
    rows = _table(path) if path.suffix == ".csv" else ((number, row) for number, _, row in jsonl_rows(path))
    found: list[Captioned] = []
    seen: dict[str, int] = {}
    for number, row in rows:
        where = f"{path}, line {number}"
        one = _checked(row, where, keys)
        if (first := seen.setdefault(one.image, number)) != number:
            raise BadFile(f"{where}: image {one.image!r} was named before, in line {first}")
        found.append(one)
    if not found:
        raise BadFile(f"{path} names no image")
    return found


def layout_captions(root: Path, images: str) -> dict[str, Captioned]:
    """Image to its captions, for a layout that has images and classes but no captions of its own.

    images: where they lie below root, for the hint. Raises Unavailable if there is no captions file.
    """
    path = find_captions(root)
    if path is None:
        raise Unavailable(
            f"{root / JSONL} does not exist, and this data set has no captions of its own",
            f'write it, one line an image: {{"image": "{images}", "captions": ["...", "..."]}}',
        )
    return {one.image: one for one in read_captions(path, ("image",))}


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """As captions.jsonl would say it: the rows of an image joined, with the number of the first line."""
    images: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, row in csv_rows(path, (("image",), ("caption", "class")), "image,task,split,caption"):
        # An empty split is a default, an empty task is an error.
        keys = ("image", "task", "split", *(("class",) if "caption" not in row else ()))
        about = {key: row[key] for key in keys if key in row and (row[key] or key != "split")}
        first, image = images.setdefault(row["image"], (number, dict(about)))
        for key, value in about.items():
            if (before := image.get(key)) != value:
                raise BadFile(
                    f"{path}, line {number}: {key} of {row['image']!r} is {value!r}, in line {first} {before!r}"
                )
        if "caption" in row:
            image.setdefault("captions", []).append(row["caption"])
    yield from images.values()


def _checked(row: dict[str, Any], where: str, keys: tuple[str, ...]) -> Captioned:
    for key in keys:
        text_field(row, key, where)
    split = row.get("split", "train")
    if split not in SPLITS:
        raise BadFile(f"{where}: 'split' must be one of {', '.join(SPLITS)}, got {split!r}")
    if "class" in row and "captions" not in row and "task" in keys:
        return Captioned(where, row["image"], (text_field(row, "class", where),), row["task"], split, has_class=True)
    captions = texts_field(row, "captions", where)
    if not captions or not all(c.strip() for c in captions):
        raise BadFile(
            f"{where}: image {row['image']!r} has no caption, or an empty one", "caption it or remove the line"
        )
    return Captioned(where, row["image"], captions, str(row.get("task", "")), split)
