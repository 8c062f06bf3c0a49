"""A folder with images and a `captions.jsonl`: one JSON object a line, one line an image.

{"image": "images/pug_16.jpg", "task": "pug", "split": "train", "captions": ["A pug that ..."]}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.api import BadFile, Photo, Task, Unavailable, inside

CAPTIONS = "captions.jsonl"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Folder:
    name: str = "folder"
    summary: str = "a folder with images and captions.jsonl"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Every task named in the file, sorted; its description is still the plain name.

        Raises Unavailable without a captions.jsonl, BadFile with path and line for anything wrong
        in it. Images are not opened here, but each must exist.
        """
        path = root / CAPTIONS
        if not path.is_file():
            raise Unavailable(f"{path} does not exist", "name a folder that holds captions.jsonl and its images")
        found: dict[str, dict[str, list[Photo]]] = {}
        seen: dict[str, int] = {}
        for number, line in _lines(path):
            where = f"{path}, line {number}"
            row = _row(line, where)
            if (first := seen.setdefault(row["image"], number)) != number:
                raise BadFile(f"{where}: image {row['image']!r} was named before, in line {first}")
            image = inside(root, row["image"])
            if not image.is_file():
                raise BadFile(f"{where}: image {image} does not exist")
            photo = Photo(image, tuple(row["captions"]))
            found.setdefault(row["task"], {split: [] for split in SPLITS})[row["split"]].append(photo)
        if not found:
            raise BadFile(f"{path} names no image")
        return [Task(root.name, name, name, found[name]) for name in sorted(found)]


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"cannot read {path}: {error}") from None
    return [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadFile(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise BadFile(f"{where}: expected an object, got {type(row).__name__}")
    for key in ("image", "task"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise BadFile(f"{where}: {key!r} must be a text, got {row.get(key)!r}")
    row.setdefault("split", "train")
    if row["split"] not in SPLITS:
        raise BadFile(f"{where}: 'split' must be one of {', '.join(SPLITS)}, got {row['split']!r}")
    captions = row.get("captions")
    if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise BadFile(f"{where}: 'captions' must be a list of texts, got {captions!r}")
    if not captions or not all(c.strip() for c in captions):
        raise BadFile(
            f"{where}: image {row['image']!r} has no caption, or an empty one", "caption it or remove the line"
        )
    return row
