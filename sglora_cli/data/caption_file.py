"""Files of captions: the one that `data caption` adds lines to, and those made elsewhere.

captions.jsonl has one object a line, one line an image: {"image": "images/pug_16.jpg", "captions": ["...", "..."]};
`task` and `split` are written too where an image has one task. A file made elsewhere is
* .jsonl of the same kind, without task and split if you like,
* .csv with the columns image and caption, one row a caption,
* .json as COCO publishes captions (lists `images` and `annotations`), or Karpathy (`images` with `sentences`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile
from sglora_cli.files.text import csv_rows, file_bytes, jsonl_rows, read_json, text_field, texts_field, whole_size
from sglora_cli.files.untrusted import TEXT_LIMIT
from sglora_cli.plugin.values import Listed


@dataclass(frozen=True)
class Entry:
    """An image and its captions, as a file has them. `where` is path and line, for errors."""

    where: str
    image: str
    captions: tuple[str, ...]
    line: str = ""
    """The whole line, where there is one."""

    @property
    def by(self) -> str:
        """Who wrote the captions, and how; "" where nobody said."""
        return str(json.loads(self.line).get("by", "")) if self.line else ""


def line_of(listed: Listed, captions: Sequence[str], by: str = "") -> str:
    """The line of an image, without a line break at its end. `by` says who wrote them, and how."""
    task = {"task": listed.tasks[0]} if len(listed.tasks) == 1 else {}
    row: dict[str, Any] = {"image": listed.image, **task, "split": listed.split, "captions": list(captions)}
    if by:
        row["by"] = by
    return json.dumps(row, ensure_ascii=False)


def read_lines(path: Path) -> dict[str, Entry]:
    """Image to its line in a captions.jsonl, {} if there is no file. A last line that was cut off is not seen.

    Raises BadFile with path and line for anything wrong, an image named twice included.
    """
    data = file_bytes(path) if path.exists() else b""
    found: dict[str, Entry] = {}
    for entry in _jsonl(path, data[: whole_size(data)]):
        if entry.image in found:
            raise BadFile(f"{entry.where}: image {entry.image!r} was named before, in {found[entry.image].where}")
        found[entry.image] = entry
    return found


def read_elsewhere(path: Path) -> list[Entry]:
    """Captions made elsewhere, an entry an image, in the file's order. Raises BadFile with path and line."""
    readers = {
        ".jsonl": lambda: _jsonl(path, file_bytes(path)),
        ".csv": lambda: _csv(path),
        ".json": lambda: _json(path),
    }
    if path.suffix not in readers:
        raise BadFile(f"captions are read from {', '.join(readers)}, got {path}", "convert it to one of these")
    joined: dict[str, Entry] = {}
    for entry in readers[path.suffix]():
        first = joined.get(entry.image, Entry(entry.where, entry.image, ()))
        joined[entry.image] = Entry(first.where, first.image, first.captions + entry.captions)
    if not joined:
        raise BadFile(f"{path} names no image")
    return list(joined.values())


def _jsonl(path: Path, data: bytes) -> Iterator[Entry]:
    for number, line, row in jsonl_rows(path, data):
        where = f"{path}, line {number}"
        captions = texts_field(row, "captions", where)
        yield Entry(where, text_field(row, "image", where), captions, line)


def _csv(path: Path) -> Iterator[Entry]:
    for number, row in csv_rows(path, (("image",), ("caption",)), "image,caption"):
        where = f"{path}, line {number}"
        yield Entry(where, text_field(row, "image", where), (row["caption"],))


def _json(path: Path) -> Iterator[Entry]:
    table = read_json(path, limit=TEXT_LIMIT)
    images = _field(table, "images", str(path))
    if not isinstance(images, list):
        raise BadFile(f"{path} has no list 'images'", "take COCO's captions or a Karpathy file")
    yield from (_coco(path, images, table) if "annotations" in table else _karpathy(path, images))


def _coco(path: Path, images: list[Any], table: dict[str, Any]) -> Iterator[Entry]:
    names: dict[Any, str] = {}
    for n, row in enumerate(images):
        where = f"{path}, images[{n}]"
        names[_number(row, "id", where)] = text_field(row, "file_name", where)
    if not isinstance(table["annotations"], list):
        raise BadFile(f"{path} has no list 'annotations'")
    for n, row in enumerate(table["annotations"]):
        where = f"{path}, annotations[{n}]"
        number = _number(row, "image_id", where)
        if number not in names:
            raise BadFile(f"{where}: image {number} is not listed in 'images'")
        caption = _field(row, "caption", where)
        if not isinstance(caption, str):
            raise BadFile(f"{where}: caption must be a text, got {caption!r:.100}", "an instances file has no captions")
        yield Entry(where, names[number], (caption,))


def _karpathy(path: Path, images: list[Any]) -> Iterator[Entry]:
    for n, row in enumerate(images):
        where = f"{path}, images[{n}]"
        name, folder, sentences = text_field(row, "filename", where), row.get("filepath", ""), row.get("sentences")
        rows = sentences if isinstance(sentences, list) else []
        raws = [s["raw"] for s in rows if isinstance(s, dict) and isinstance(s.get("raw"), str)]
        if not raws or len(raws) < len(rows) or not isinstance(folder, str):
            raise BadFile(f"{where}: sentences must be a list with a text `raw` in each, got {sentences!r:.100}")
        yield Entry(where, f"{folder}/{name}" if folder else name, tuple(raws))


def _field(row: Any, key: str, where: str) -> Any:
    if not isinstance(row, dict):
        raise BadFile(f"{where}: expected an object, got {type(row).__name__}")
    return row.get(key)


def _number(row: Any, key: str, where: str) -> int:
    value = _field(row, key, where)
    if type(value) is not int:
        raise BadFile(f"{where}: {key!r} must be a whole number, got {value!r:.100}")
    return value
