"""Files of captions: those of a data set, and those made elsewhere.

captions.jsonl has one object a line, one line an image:
{"image": "images/pug_16.jpg", "task": "pug", "split": "train", "captions": ["A pug that ..."]}
An image of a classification task has, instead of captions, the class it is sorted into: "class": "fawn". `data caption`
adds lines to this file; it writes `task` only where an image has one task.
captions.csv has the header image,task,split,caption and one row a caption: an image with four captions has four rows.
Of classification tasks it is image,task,split,class.

A file made elsewhere is
* .jsonl of the same kind, without task and split if you like,
* .csv with the columns image and caption, one row a caption,
* .json as COCO publishes captions (lists `images` and `annotations`), or Karpathy (`images` with `sentences`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile
from sglora_cli.files.named_once import NamedOnce, plain_name
from sglora_cli.files.text import csv_rows, file_bytes, jsonl_rows, read_json, text_field, texts_field, whole_size
from sglora_cli.files.untrusted import TEXT_LIMIT
from sglora_cli.plugin.values import SPLITS, TRAIN, Listed

CAPTIONS_JSONL, CAPTIONS_CSV = "captions.jsonl", "captions.csv"
_KINDS = {int: "a whole number", str: "a text"}


@dataclass(frozen=True)
class Captioned:
    """An image and its captions, as a file has them. `where` is path and line, for errors."""

    where: str
    image: str
    """Its path below the data set's folder. Of a data set's own file it is without `.`, `//` and `..`."""
    captions: tuple[str, ...]
    task: str = ""
    split: str = TRAIN
    has_class: bool = False
    """Whether its one caption is its class: that of a classification task."""
    line: str = ""
    """The whole line, where it was kept."""

    @property
    def by(self) -> str:
        """Who wrote the captions, and how; "" where nobody said."""
        return str(json.loads(self.line).get("by", "")) if self.line else ""


def find_captions(root: Path) -> Path | None:
    """The captions file of a data set; captions.jsonl if both are there."""
    return next((root / name for name in (CAPTIONS_JSONL, CAPTIONS_CSV) if (root / name).is_file()), None)


def read_captions(path: Path, keys: tuple[str, ...] = ("image", "task")) -> list[Captioned]:
    """All images of a captions file, in its order; `keys` are the texts a row must have.

    Raises BadFile with path and line for anything wrong, an image named twice included.
    """
    rows = _table(path) if path.suffix == ".csv" else ((number, row) for number, _, row in jsonl_rows(path))
    entries: list[Captioned] = []
    named = NamedOnce(path.parent)
    for number, row in rows:
        where = f"{path}, line {number}"
        one = _checked(row, where, keys)
        named.add(row["image"], where, f"line {number}")
        entries.append(one)
    if not entries:
        raise BadFile(f"{path} names no image")
    return entries


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """As captions.jsonl would say it: the rows of an image joined, with the number of the first line."""
    images: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, row in csv_rows(path, (("image",), ("caption", "class")), "image,task,split,caption"):
        # An empty split is a default, an empty task is an error.
        keys = ("image", "task", "split", *(("class",) if "caption" not in row else ()))
        shared = {key: row[key] for key in keys if key in row and (row[key] or key != "split")}
        first, image = images.setdefault(row["image"], (number, dict(shared)))
        for key, value in shared.items():
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
    split = row.get("split", TRAIN)
    if split not in SPLITS:
        raise BadFile(f"{where}: 'split' must be one of {', '.join(SPLITS)}, got {split!r}")
    if "class" in row and "captions" not in row and "task" in keys:
        label = text_field(row, "class", where)
        return Captioned(where, plain_name(row["image"]), (label,), row["task"], split, has_class=True)
    captions = texts_field(row, "captions", where)
    if not captions or not all(c.strip() for c in captions):
        raise BadFile(
            f"{where}: image {row['image']!r} has no caption, or an empty one", "caption it or remove the line"
        )
    return Captioned(where, plain_name(row["image"]), captions, str(row.get("task", "")), split)


def line_of(listed: Listed, captions: Sequence[str], by: str = "") -> str:
    """The line of an image, without a line break at its end. `by` says who wrote them, and how."""
    task = {"task": listed.tasks[0]} if len(listed.tasks) == 1 else {}
    row: dict[str, Any] = {"image": listed.image, **task, "split": listed.split, "captions": list(captions)}
    if by:
        row["by"] = by
    return json.dumps(row, ensure_ascii=False)


def read_lines(path: Path, data: bytes | None = None) -> dict[str, Captioned]:
    """Image, without `.`, `//` and `..`, to its line in a captions.jsonl, {} if there is no file. A last line that was
    cut off is not seen. `data` is the content, if it is known.

    Raises BadFile with path and line for anything wrong, an image named twice included.
    """
    if data is None:
        data = file_bytes(path) if path.exists() else b""
    lines: dict[str, Captioned] = {}
    named = NamedOnce()
    for entry in _jsonl(path, data[: whole_size(data)]):
        named.add(entry.image, entry.where)
        image = plain_name(entry.image)
        lines[image] = replace(entry, image=image)
    return lines


def read_elsewhere(path: Path) -> list[Captioned]:
    """Captions made elsewhere, an entry an image, in the file's order. Raises BadFile with path and line."""
    readers = {
        ".jsonl": lambda: _jsonl(path, file_bytes(path)),
        ".csv": lambda: _csv(path),
        ".json": lambda: _json(path),
    }
    if path.suffix not in readers:
        raise BadFile(f"captions are read from {', '.join(readers)}, got {path}", "convert it to one of these")
    joined: dict[str, Captioned] = {}
    for entry in readers[path.suffix]():
        first = joined.get(entry.image, Captioned(entry.where, entry.image, ()))
        joined[entry.image] = Captioned(first.where, first.image, first.captions + entry.captions)
    if not joined:
        raise BadFile(f"{path} names no image")
    return list(joined.values())


def _jsonl(path: Path, data: bytes) -> Iterator[Captioned]:
    for number, line, row in jsonl_rows(path, data):
        where = f"{path}, line {number}"
        captions = texts_field(row, "captions", where)
        yield Captioned(where, text_field(row, "image", where), captions, line=line)


def _csv(path: Path) -> Iterator[Captioned]:
    for number, row in csv_rows(path, (("image",), ("caption",)), "image,caption"):
        where = f"{path}, line {number}"
        yield Captioned(where, text_field(row, "image", where), (row["caption"],))


def _json(path: Path) -> Iterator[Captioned]:
    table = read_json(path, limit=TEXT_LIMIT)
    if not isinstance(table, dict):
        raise BadFile(f"{path}: expected an object, got {type(table).__name__}")
    if not isinstance(table.get("images"), list):
        raise BadFile(f"{path} has no list 'images'", "take COCO's captions or a Karpathy file")
    yield from (_coco(path, table) if "annotations" in table else _karpathy(path, table))


def _coco(path: Path, table: Any) -> Iterator[Captioned]:
    names = coco_images(table, path)
    for n, row in enumerate(coco_rows(table, "annotations", path, {"image_id": int})):
        where, number, caption = f"{path}, annotations[{n}]", row["image_id"], row.get("caption")
        if number not in names:
            raise BadFile(f"{where}: image {number} is not listed in 'images'")
        if not isinstance(caption, str):
            raise BadFile(f"{where}: caption must be a text, got {caption!r:.100}", "an instances file has no captions")
        yield Captioned(where, names[number], (caption,))


def _karpathy(path: Path, table: Any) -> Iterator[Captioned]:
    named = NamedOnce()
    for where, row in karpathy_rows(table, path):
        folder, raws = row.get("filepath", ""), karpathy_sentences(row, where)
        if not isinstance(folder, str):
            raise BadFile(f"{where}: filepath must be a text, got {folder!r:.100}")
        image = f"{folder}/{row['filename']}" if folder else row["filename"]
        named.add(image, where, where.rpartition(", ")[2])
        yield Captioned(where, image, raws)


def coco_rows(table: Any, key: str, path: Path, kinds: Mapping[str, type]) -> list[dict[str, Any]]:
    """The list `key` of a COCO file, each row with values of these kinds. Raises BadFile with the row's number."""
    rows = table.get(key) if isinstance(table, dict) else None
    if not isinstance(rows, list):
        raise BadFile(f"{path} has no list {key!r}", "take the file as COCO publishes it")
    for n, row in enumerate(rows):
        for name, kind in kinds.items():
            if not isinstance(row, dict) or type(row.get(name)) is not kind:
                got = row.get(name) if isinstance(row, dict) else row
                raise BadFile(f"{path}: {key}[{n}]: {name} must be {_KINDS[kind]}, got {got!r:.100}")
    return rows


def coco_images(table: Any, path: Path) -> dict[int, str]:
    """Number to file name of the images of a COCO file. Raises BadFile for a number of two, or a name of two."""
    names: dict[int, str] = {}
    named = NamedOnce()
    for n, row in enumerate(coco_rows(table, "images", path, {"id": int, "file_name": str})):
        number, name = row["id"], row["file_name"]
        if names.get(number) == name:  # said twice, as in files that were put together
            continue
        if number in names:
            raise BadFile(f"{path}: images[{n}]: image {number} is {name!r} here and {names[number]!r} before")
        named.add(name, f"{path}: images[{n}]", f"image {number}")
        names[number] = name
    return names


def karpathy_rows(table: Any, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every image of a Karpathy file, which has a `filename`, and where it stands. Raises BadFile with its number."""
    images = table.get("images") if isinstance(table, dict) else None
    if not isinstance(images, list):
        raise BadFile(f"{path} has no list 'images'", "a Karpathy file has images with sentences and splits")
    for n, row in enumerate(images):
        where = f"{path}, images[{n}]"
        if not isinstance(row, dict) or not isinstance(row.get("filename"), str):
            raise BadFile(f"{where}: filename must be a text")
        yield where, row


def karpathy_sentences(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The sentences of an image of a Karpathy file, as they are written. Raises BadFile."""
    sentences = row.get("sentences")
    rows = sentences if isinstance(sentences, list) else []
    raws = tuple(one["raw"] for one in rows if isinstance(one, dict) and isinstance(one.get("raw"), str))
    if not raws or len(raws) < len(rows):
        raise BadFile(f"{where}: sentences must be a list with a text `raw` in each, got {sentences!r:.100}")
    return raws
