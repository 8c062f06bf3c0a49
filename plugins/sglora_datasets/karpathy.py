"""Karpathy's splits: images with their sentences and sides, in one JSON file such as dataset_flickr30k.json.

{"images": [{"filename": "1.jpg", "split": "train", "sentences": [{"raw": "A dog runs."}, ...]}, ...]}
That of COCO also has "filepath": "train2014" and COCO's own number, "cocoid": 57870.
`train` and `restval` are for training, `test` for testing; `val` is left out: nothing here is chosen on it.
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
    """Images for training and testing, in the file's order. Raises BadFile with the image's number."""
    return (one for one, _ in _read(path))


def read_karpathy_coco(path: Path) -> Iterator[tuple[Captioned, str, int]]:
    """Those of COCO, with folder and number."""
    for one, row in _read(path):
        folder, number = row.get("filepath"), row.get("cocoid")
        if not isinstance(folder, str) or type(number) is not int:
            raise BadFile(f"{one.where}: filepath must be a text and cocoid a whole number")
        yield one, folder, number


def left_out(path: Path) -> Iterator[tuple[str, str]]:
    """File name of the images of `val`, and the same with the folder they have in COCO. Raises as the others."""
    for _, row in karpathy_rows(read_json(path, _slim, TEXT_LIMIT), path):
        if not SIDES.get(str(row.get("split"))):
            yield plain_name(row["filename"]), plain_name(_image(row))


def _read(path: Path) -> Iterator[tuple[Captioned, dict[str, Any]]]:
    named, numbers = NamedOnce(), dict[int, str]()
    for where, row in karpathy_rows(read_json(path, _slim, TEXT_LIMIT), path):  # COCO's has 144 million bytes
        place, side = where.rpartition(", ")[2], row.get("split")
        named.add(_image(row), where, place)
        if type(number := row.get("cocoid")) is int and (first := numbers.setdefault(number, place)) != place:
            raise BadFile(f"{where}: cocoid {number} was given before, in {first}", "give each image its own")
        if not isinstance(side, str) or side not in SIDES:
            raise BadFile(f"{where}: split must be one of {', '.join(SIDES)}, got {side!r:.100}")
        captions = tuple(" ".join(raw.split()) for raw in karpathy_sentences(row, where))
        if not all(captions):
            raise BadFile(f"{where}: sentences must be a list with a text `raw` in each, got {row['sentences']!r:.100}")
        if SIDES[side]:
            yield Captioned(where, row["filename"], captions, "", SIDES[side]), row


def _image(row: Mapping[str, Any]) -> str:
    """An image's file, below its folder if it has one."""
    folder = row.get("filepath")
    return f"{folder}/{row['filename']}" if folder else str(row["filename"])


def _slim(row: dict[str, Any]) -> dict[str, Any]:
    """A sentence without its tokens: the raw text says the same."""
    row.pop("tokens", None)
    return row
