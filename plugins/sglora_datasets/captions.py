"""Captions beside images, in captions.jsonl or captions.csv: who is in them, and where each was written.

captions.jsonl has one object a line, one line an image:
{"image": "images/pug_16.jpg", "task": "pug", "split": "train", "captions": ["A pug that ..."]}
An image of a classification task has, instead of captions, the class it is sorted into: "class": "fawn".
captions.csv has the header image,task,split,caption and one row a caption: an image with four captions has four rows.
Of classification tasks it is image,task,split,class.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.api import TEXT_LIMIT, BadFile, Unavailable, json_value, read_bytes

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
    rows = _csv_rows(path) if path.suffix == ".csv" else _jsonl_rows(path)
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


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Lines of a text that are not blank, with their numbers. Raises BadFile."""
    return [(n, line) for n, line in enumerate(_text(path).split("\n"), 1) if line.strip()]


def _text(path: Path) -> str:
    try:
        return read_bytes(path, TEXT_LIMIT).decode("utf-8-sig")  # spreadsheets put a byte order mark
    except UnicodeDecodeError as error:
        raise BadFile(f"cannot read {path}: {error}") from None


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        try:
            row = json_value(line)
        except ValueError as error:
            raise BadFile(f"{where}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise BadFile(f"{where}: expected an object, got {type(row).__name__}")
        yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """As captions.jsonl would say it: the rows of an image joined, with the number of the first line."""
    images: dict[str, tuple[int, dict[str, Any]]] = {}
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        names = set(reader.fieldnames or ())
        keys = ("image", "task", "split", *(("class",) if "caption" not in names else ()))
        if missing := {"image", "caption" if "class" not in names else "class"} - names:
            raise BadFile(f"{path}, line 1: no column {sorted(missing)[0]!r}", "the header is image,task,split,caption")
        for row in reader:
            number = reader.reader.line_num
            if None in row or None in row.values():
                raise BadFile(f"{path}, line {number}: expected {len(reader.fieldnames or ())} columns", "quote commas")
            # An empty split is a default, an empty task is an error.
            about = {key: row[key] for key in keys if key in row and (row[key] or key != "split")}
            first, image = images.setdefault(row["image"], (number, dict(about)))
            for key, value in about.items():
                if (before := image.get(key)) != value:
                    raise BadFile(
                        f"{path}, line {number}: {key} of {row['image']!r} is {value!r}, in line {first} {before!r}"
                    )
            if "caption" in row:
                image.setdefault("captions", []).append(row["caption"])
    except csv.Error as error:
        raise BadFile(f"{path}, line {reader.reader.line_num}: not CSV: {error}") from None
    yield from images.values()


def _checked(row: dict[str, Any], where: str, keys: tuple[str, ...]) -> Captioned:
    for key in keys:
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise BadFile(f"{where}: {key!r} must be a text, got {row.get(key)!r}")
    split = row.get("split", "train")
    if split not in SPLITS:
        raise BadFile(f"{where}: 'split' must be one of {', '.join(SPLITS)}, got {split!r}")
    if "class" in row and "captions" not in row and "task" in keys:
        if not isinstance(row["class"], str) or not row["class"].strip():
            raise BadFile(f"{where}: 'class' must be a text, got {row['class']!r}")
        return Captioned(where, row["image"], (row["class"],), row["task"], split, has_class=True)
    captions = row.get("captions")
    if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise BadFile(f"{where}: 'captions' must be a list of texts, got {captions!r}")
    if not captions or not all(c.strip() for c in captions):
        raise BadFile(
            f"{where}: image {row['image']!r} has no caption, or an empty one", "caption it or remove the line"
        )
    return Captioned(where, row["image"], tuple(captions), str(row.get("task", "")), split)
