"""Read and write caption files, those of a data set and those of other programs.

captions.jsonl has one JSON object per line and one line per image:
{"image": "images/pug_16.jpg", "task": "pug", "split": "train", "captions": ["A pug that ..."]}
An image of a classification task has its class instead of captions: "class": "fawn". `data caption` appends lines to
this file. It writes `task` only if an image has exactly one task.
captions.csv has the header image,task,split,caption and one row per caption. An image with four captions has four rows.
For classification tasks the header is image,task,split,class.

A file from another program is one of these:
* .jsonl of the same form, where task and split are optional,
* .csv with the columns image and caption, one row per caption,
* .json in COCO's caption format (lists `images` and `annotations`) or in Karpathy's (`images` with `sentences`).
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
_KINDS = {int: "a whole number", str: "a string"}


@dataclass(frozen=True)
class Captioned:
    """An image and its captions, as read from a file."""

    where: str
    """File and line, for error messages."""
    image: str
    """Path relative to the data set's folder. In a data set's own file it is normalised: no `.`, `//` or `..`."""
    captions: tuple[str, ...]
    task: str = ""
    split: str = TRAIN
    has_class: bool = False
    """Whether the one caption is the class of a classification task."""
    line: str = ""
    """The complete line, if the reader stores it."""

    @property
    def by(self) -> str:
        """Which captioner wrote the captions and how; "" if it is not recorded."""
        return str(json.loads(self.line).get("by", "")) if self.line else ""


def find_captions(root: Path) -> Path | None:
    """Return the captions file of a data set, or None. captions.jsonl takes precedence over captions.csv."""
    return next((root / name for name in (CAPTIONS_JSONL, CAPTIONS_CSV) if (root / name).is_file()), None)


def read_captions(path: Path, keys: tuple[str, ...] = ("image", "task")) -> list[Captioned]:
    """Return all images of a captions file, in file order. `keys` are the string fields that a row must have.

    Raises BadFile with file and line for any error, including an image that is listed twice.
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
        raise BadFile(f"{path} lists no images")
    return entries


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield rows in the form of captions.jsonl: the rows of one image merged, with the number of its first line."""
    images: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, row in csv_rows(path, (("image",), ("caption", "class")), "image,task,split,caption"):
        # An empty split is a default, an empty task is an error.
        keys = ("image", "task", "split", *(("class",) if "caption" not in row else ()))
        shared = {key: row[key] for key in keys if key in row and (row[key] or key != "split")}
        first, image = images.setdefault(row["image"], (number, dict(shared)))
        for key, value in shared.items():
            if (before := image.get(key)) != value:
                raise BadFile(
                    f"{path}, line {number}: {key} of {row['image']!r} is {value!r}, "
                    f"but in line {first} it is {before!r}"
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
            f"{where}: image {row['image']!r} has no caption or an empty one", "write a caption or remove the line"
        )
    return Captioned(where, plain_name(row["image"]), captions, str(row.get("task", "")), split)


def line_of(listed: Listed, captions: Sequence[str], by: str = "") -> str:
    """Return the line of an image, without a trailing newline. `by` records which captioner wrote it and how."""
    task = {"task": listed.tasks[0]} if len(listed.tasks) == 1 else {}
    row: dict[str, Any] = {"image": listed.image, **task, "split": listed.split, "captions": list(captions)}
    if by:
        row["by"] = by
    return json.dumps(row, ensure_ascii=False)


def read_lines(path: Path, data: bytes | None = None) -> dict[str, Captioned]:
    """Map each image of a captions.jsonl, with its path normalised, to its line. Returns {} if the file is missing.

    data: the content, if it has been read. An incomplete last line is ignored.
    Raises BadFile with file and line for any error, including an image that is listed twice.
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
    """Read a caption file of another program, one entry per image, in file order. Raises BadFile with file and line."""
    readers = {
        ".jsonl": lambda: _jsonl(path, file_bytes(path)),
        ".csv": lambda: _csv(path),
        ".json": lambda: _json(path),
    }
    if path.suffix not in readers:
        raise BadFile(
            f"caption files must end in one of {', '.join(readers)}, got {path}", "convert it to one of these formats"
        )
    joined: dict[str, Captioned] = {}
    for entry in readers[path.suffix]():
        first = joined.get(entry.image, Captioned(entry.where, entry.image, ()))
        joined[entry.image] = Captioned(first.where, first.image, first.captions + entry.captions)
    if not joined:
        raise BadFile(f"{path} lists no images")
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
        raise BadFile(f"{path} has no list 'images'", "use a COCO captions file or a Karpathy file")
    yield from (_coco(path, table) if "annotations" in table else _karpathy(path, table))


def _coco(path: Path, table: Any) -> Iterator[Captioned]:
    names = coco_images(table, path)
    for n, row in enumerate(coco_rows(table, "annotations", path, {"image_id": int})):
        where, number, caption = f"{path}, annotations[{n}]", row["image_id"], row.get("caption")
        if number not in names:
            raise BadFile(f"{where}: image {number} is not listed in 'images'")
        if not isinstance(caption, str):
            raise BadFile(
                f"{where}: caption must be a string, got {caption!r:.100}", "use a captions file, not an instances file"
            )
        yield Captioned(where, names[number], (caption,))


def _karpathy(path: Path, table: Any) -> Iterator[Captioned]:
    named = NamedOnce()
    for where, row in karpathy_rows(table, path):
        folder, raws = row.get("filepath", ""), karpathy_sentences(row, where)
        if not isinstance(folder, str):
            raise BadFile(f"{where}: filepath must be a string, got {folder!r:.100}")
        image = f"{folder}/{row['filename']}" if folder else row["filename"]
        named.add(image, where, where.rpartition(", ")[2])
        yield Captioned(where, image, raws)


def coco_rows(table: Any, key: str, path: Path, kinds: Mapping[str, type]) -> list[dict[str, Any]]:
    """Return the list `key` of a COCO file after checking the types in `kinds`. Raises BadFile with the row index."""
    rows = table.get(key) if isinstance(table, dict) else None
    if not isinstance(rows, list):
        raise BadFile(f"{path} has no list {key!r}", "use the unmodified file that COCO publishes")
    for n, row in enumerate(rows):
        for name, kind in kinds.items():
            if not isinstance(row, dict) or type(row.get(name)) is not kind:
                got = row.get(name) if isinstance(row, dict) else row
                raise BadFile(f"{path}: {key}[{n}]: {name} must be {_KINDS[kind]}, got {got!r:.100}")
    return rows


def coco_images(table: Any, path: Path) -> dict[int, str]:
    """Map image ids of a COCO file to file names. Raises BadFile for an id with two names or a name with two ids."""
    names: dict[int, str] = {}
    named = NamedOnce()
    for n, row in enumerate(coco_rows(table, "images", path, {"id": int, "file_name": str})):
        number, name = row["id"], row["file_name"]
        if names.get(number) == name:  # listed twice, as in files that were concatenated
            continue
        if number in names:
            raise BadFile(f"{path}: images[{n}]: image {number} is {name!r}, but it was {names[number]!r} before")
        named.add(name, f"{path}: images[{n}]", f"image {number}")
        names[number] = name
    return names


def karpathy_rows(table: Any, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (location, row) for every image of a Karpathy file. Raises BadFile for a row without a `filename`."""
    images = table.get("images") if isinstance(table, dict) else None
    if not isinstance(images, list):
        raise BadFile(f"{path} has no list 'images'", "a Karpathy file has images with sentences and splits")
    for n, row in enumerate(images):
        where = f"{path}, images[{n}]"
        if not isinstance(row, dict) or not isinstance(row.get("filename"), str):
            raise BadFile(f"{where}: filename must be a string")
        yield where, row


def karpathy_sentences(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the raw sentences of an image in a Karpathy file. Raises BadFile."""
    sentences = row.get("sentences")
    rows = sentences if isinstance(sentences, list) else []
    raws = tuple(one["raw"] for one in rows if isinstance(one, dict) and isinstance(one.get("raw"), str))
    if not raws or len(raws) < len(rows):
        raise BadFile(f"{where}: sentences must be a list of objects with a string `raw`, got {sentences!r:.100}")
    return raws
