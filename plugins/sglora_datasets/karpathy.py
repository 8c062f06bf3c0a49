"""Karpathy's splits: images with sentences and splits in one JSON file such as dataset_flickr30k.json.

{"images": [{"filename": "1.jpg", "split": "train", "sentences": [{"raw": "A dog runs."}, ...]}, ...]}
The file of COCO also has "filepath": "train2014" and COCO's number, "cocoid": 57870.
`train` and `restval` are for training and `test` for testing. `val` is left out, because nothing is tuned on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sglora_cli.api import (
    TEXT_LIMIT,
    BadFile,
    Captioned,
    NamedOnce,
    karpathy_rows,
    karpathy_sentences,
    plain_name,
    read_json,
)

SIDES = {"train": "train", "restval": "train", "test": "test", "val": ""}


def read_karpathy(path: Path) -> Iterator[Captioned]:
    """Yield images for training and testing in the file's order. Raises BadFile with the image's number."""
    return (one for one, _ in _read(path))


def read_karpathy_coco(path: Path) -> Iterator[tuple[Captioned, str, int]]:
    """Yield images of COCO with folder and number."""
    for one, row in _read(path):
        folder, number = row.get("filepath"), row.get("cocoid")
        if not isinstance(folder, str) or type(number) is not int:
            raise BadFile(f"{one.where}: filepath must be a string and cocoid an integer")
        yield one, folder, number


def left_out(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the file names of `val` images, without and with their folder in COCO. Raises BadFile."""
    for _, row in karpathy_rows(read_json(path, _slim, TEXT_LIMIT), path):
        if not SIDES.get(str(row.get("split"))):
            yield plain_name(row["filename"]), plain_name(_image(row))


def _read(path: Path) -> Iterator[tuple[Captioned, dict[str, Any]]]:
    named, numbers = NamedOnce(), dict[int, str]()
    for where, row in karpathy_rows(read_json(path, _slim, TEXT_LIMIT), path):  # COCO's has 144 million bytes
        place, side = where.rpartition(", ")[2], row.get("split")
        named.add(_image(row), where, place)
        if type(number := row.get("cocoid")) is int and (first := numbers.setdefault(number, place)) != place:
            raise BadFile(f"{where}: cocoid {number} is also used in {first}", "give each image its own")
        if not isinstance(side, str) or side not in SIDES:
            raise BadFile(f"{where}: split must be one of {', '.join(SIDES)}, got {side!r:.100}")
        captions = tuple(" ".join(raw.split()) for raw in karpathy_sentences(row, where))
        if not all(captions):
            raise BadFile(
                f"{where}: sentences must be a list of objects with a string `raw`, got {row['sentences']!r:.100}"
            )
        if SIDES[side]:
            yield Captioned(where, row["filename"], captions, "", SIDES[side]), row


def _image(row: Mapping[str, Any]) -> str:
    """Return an image's file, with its folder if it has one."""
    folder = row.get("filepath")
    return f"{folder}/{row['filename']}" if folder else str(row["filename"])


def _slim(row: dict[str, Any]) -> dict[str, Any]:
    """Drop a sentence's tokens, which the raw text makes redundant."""
    row.pop("tokens", None)
    return row
