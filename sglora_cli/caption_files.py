"""Files of captions: the one that `data caption` adds lines to, and those made elsewhere.

captions.jsonl has one object a line, one line an image: {"image": "images/pug_16.jpg", "captions": ["...", "..."]};
`task` and `split` are written too where an image has one task. A file made elsewhere is
* .jsonl of the same kind, without task and split if you like,
* .csv with the columns image and caption, one row a caption,
* .json as COCO publishes captions (lists `images` and `annotations`), or Karpathy (`images` with `sentences`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.contracts import Listed
from sglora_cli.errors import BadFile
from sglora_cli.files import read_json
from sglora_cli.strict import TEXT_LIMIT, json_value, read_bytes


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
    data = _bytes(path) if path.exists() else b""
    found: dict[str, Entry] = {}
    for entry in _jsonl(path, data[: whole_size(data)]):
        if entry.image in found:
            raise BadFile(f"{entry.where}: image {entry.image!r} was named before, in {found[entry.image].where}")
        found[entry.image] = entry
    return found


def whole_size(data: bytes) -> int:
    """Bytes of a captions.jsonl up to the last line that is whole. One without its line break may be: by hand.

    >>> whole_size(b'{"image": "a"}\\n{"ima'), whole_size(b'{"image": "a"}')
    (15, 14)
    """
    last = data.rpartition(b"\n")[2]
    try:
        whole = isinstance(json_value(last.decode("utf-8")), dict)
    except ValueError:
        whole = False
    return len(data) if whole else len(data) - len(last)


def mend(path: Path) -> None:
    """Make a file end with a whole line: an interruption may have cut the last one off."""
    data = _bytes(path) if path.exists() else b""
    size = whole_size(data)
    if size == len(data) and (not data or data.endswith(b"\n")):
        return
    with path.open("r+b") as file:
        file.truncate(size)
        if size and data[size - 1 : size] != b"\n":
            file.seek(size)
            file.write(b"\n")


def read_elsewhere(path: Path) -> list[Entry]:
    """Captions made elsewhere, an entry an image, in the file's order. Raises BadFile with path and line."""
    readers = {".jsonl": lambda: _jsonl(path, _bytes(path)), ".csv": lambda: _csv(path), ".json": lambda: _json(path)}
    if path.suffix not in readers:
        raise BadFile(f"captions are read from {', '.join(readers)}, got {path}", "convert it to one of these")
    joined: dict[str, Entry] = {}
    for entry in readers[path.suffix]():
        first = joined.get(entry.image, Entry(entry.where, entry.image, ()))
        joined[entry.image] = Entry(first.where, first.image, first.captions + entry.captions)
    if not joined:
        raise BadFile(f"{path} names no image")
    return list(joined.values())


def _bytes(path: Path) -> bytes:
    return read_bytes(path, TEXT_LIMIT)


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"cannot read {path}: {error}") from None


def _jsonl(path: Path, data: bytes) -> Iterator[Entry]:
    for number, line in enumerate(_text(path, data).split("\n"), 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json_value(line)
        except ValueError as error:
            raise BadFile(f"{where}: not JSON: {error}") from None
        captions = _field(row, "captions", where)
        if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
            raise BadFile(f"{where}: 'captions' must be a list of texts, got {captions!r:.100}")
        yield Entry(where, _name(row, "image", where), tuple(captions), line.rstrip("\r"))


def _csv(path: Path) -> Iterator[Entry]:
    reader = csv.DictReader(io.StringIO(_text(path, _bytes(path)), newline=""), strict=True)
    try:
        if missing := {"image", "caption"} - set(reader.fieldnames or ()):
            raise BadFile(f"{path}, line 1: no column {min(missing)!r}", "the header is image,caption")
        for row in reader:
            where = f"{path}, line {reader.reader.line_num}"
            if None in row or None in row.values():
                raise BadFile(f"{where}: expected {len(reader.fieldnames or ())} columns", "quote commas")
            yield Entry(where, _name(row, "image", where), (row["caption"],))
    except csv.Error as error:
        raise BadFile(f"{path}, line {reader.reader.line_num}: not CSV: {error}") from None


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
        names[_number(row, "id", where)] = _name(row, "file_name", where)
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
        name, folder, sentences = _name(row, "filename", where), row.get("filepath", ""), row.get("sentences")
        rows = sentences if isinstance(sentences, list) else []
        raws = [s["raw"] for s in rows if isinstance(s, dict) and isinstance(s.get("raw"), str)]
        if not raws or len(raws) < len(rows) or not isinstance(folder, str):
            raise BadFile(f"{where}: sentences must be a list with a text `raw` in each, got {sentences!r:.100}")
        yield Entry(where, f"{folder}/{name}" if folder else name, tuple(raws))


def _field(row: Any, key: str, where: str) -> Any:
    if not isinstance(row, dict):
        raise BadFile(f"{where}: expected an object, got {type(row).__name__}")
    return row.get(key)


def _name(row: Any, key: str, where: str) -> str:
    value = _field(row, key, where)
    if not isinstance(value, str) or not value.strip():
        raise BadFile(f"{where}: {key!r} must be a text, got {value!r:.100}")
    return value


def _number(row: Any, key: str, where: str) -> int:
    value = _field(row, key, where)
    if type(value) is not int:
        raise BadFile(f"{where}: {key!r} must be a whole number, got {value!r:.100}")
    return value
