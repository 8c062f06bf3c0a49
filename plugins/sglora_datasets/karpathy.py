"""Karpathy's splits: images with their sentences and sides, in one JSON file such as dataset_flickr30k.json.

{"images": [{"filename": "1.jpg", "split": "train", "sentences": [{"raw": "A dog runs."}, ...]}, ...]}
That of COCO also has "filepath": "train2014" and COCO's own number, "cocoid": 57870.
`train` and `restval` are for training, `test` for testing; `val` is left out: nothing here is chosen on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sglora_cli.api import BadFile, read_json

from .captions import Captioned

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


def _read(path: Path) -> Iterator[tuple[Captioned, dict[str, Any]]]:
    table = read_json(path, _slim, 1 << 30)  # COCO's has 144 million bytes
    images = table.get("images") if isinstance(table, dict) else None
    if not isinstance(images, list):
        raise BadFile(f"{path} has no list 'images'", "a Karpathy file has images with sentences and splits")
    for n, row in enumerate(images):
        where = f"{path}, images[{n}]"
        if not isinstance(row, dict) or not isinstance(row.get("filename"), str):
            raise BadFile(f"{where}: filename must be a text")
        side = row.get("split")
        if not isinstance(side, str) or side not in SIDES:
            raise BadFile(f"{where}: split must be one of {', '.join(SIDES)}, got {side!r:.100}")
        captions = [" ".join(raw.split()) for raw in _raws(row.get("sentences"), where)]
        if SIDES[side]:
            yield Captioned(where, row["filename"], tuple(captions), "", SIDES[side]), row


def _raws(sentences: Any, where: str) -> list[str]:
    raws = [s.get("raw") if isinstance(s, dict) else None for s in sentences] if isinstance(sentences, list) else []
    found = [raw for raw in raws if isinstance(raw, str) and raw.strip()]
    if not found or len(found) < len(raws):
        raise BadFile(f"{where}: sentences must be a list with a text `raw` in each, got {sentences!r:.100}")
    return found


def _slim(row: dict[str, Any]) -> dict[str, Any]:
    """A sentence without its tokens: the raw text says the same."""
    row.pop("tokens", None)
    return row
