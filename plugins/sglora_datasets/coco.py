"""MS-COCO in its own files: annotations/{captions,instances}_SPLIT.json and SPLIT/000000000009.jpg.

A task is a category. The paper takes "COCO (its training split, re-split)", and leaves the rest open; here
* SPLIT is train2017, else train2014; a folder that has neither gives what it has: val2017, else val2014;
* an image belongs to every category of which it has an instance; crowds (`iscrowd`) do not count;
* one image in five is for testing, by the SHA-256 of its id: the same image is on the same side in every
  task, so no task's training can see a test image of another;
* photos stand in the order of that hash, so that the first hundred are a fair sample;
* captions are COCO's, or those of a captions.jsonl beside `annotations` (as a vision-language model wrote
  them); then images it does not name are left out, and a task has captions of one kind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.api import BadFile, Photo, Task, Unavailable, read_json

from .captions import find_captions, read_captions
from .gathering import gathered, hashed, split_of

SPLITS = ("train2017", "train2014", "val2017", "val2014")
SITE = "http://images.cocodataset.org"
_KINDS = {int: "a whole number", str: "a text"}


@dataclass(frozen=True)
class Coco:
    name: str = "coco"
    summary: str = "MS-COCO in its own files; a task a category"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Every category with a captioned image, sorted.

        Raises Unavailable if a file is missing, BadFile for a file that is not what COCO's is, and for
        an image that is named and not there. Images are not opened here.
        """
        split = next((s for s in SPLITS if _instances(root, s).is_file()), None)
        if split is None:
            raise Unavailable(f"{_instances(root, SPLITS[0])} does not exist", _where_from(root))
        path = _instances(root, split)
        table = read_json(path, _slim)
        members = _members(table, path)
        names = {row["id"]: row["file_name"] for row in _rows(table, "images", path, {"id": int, "file_name": str})}
        captions = _own_captions(root, split, names) or _captions(root, split)
        chosen = sorted(members.keys() & captions.keys(), key=hashed)
        if not chosen:
            raise BadFile(f"{path}: no image has an instance and a caption")
        _check_images(root / split, chosen, names, path)
        return gathered(
            root,
            (
                (category, split_of(number), Photo(root / split / names[number], captions[number]))
                for number in chosen
                for category in members[number]
            ),
        )

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Raises Unavailable, saying what to put where: so much is not fetched by the way."""
        root = data / "coco"
        raise Unavailable("COCO is not downloaded by this program: its photos are 18 GB", _where_from(root))


def _where_from(root: Path) -> str:
    return (
        f"put the photos of {SITE}/zips/train2017.zip into {root / 'train2017'}, and captions_train2017.json and "
        f"instances_train2017.json of {SITE}/annotations/annotations_trainval2017.zip into {root / 'annotations'}"
    )


def _instances(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def _slim(row: dict[str, Any]) -> dict[str, Any]:
    """An object without its outline: nine tenths of the instances file are outlines."""
    row.pop("segmentation", None)
    return row


def _members(table: Any, path: Path) -> dict[int, set[str]]:
    """Image id to the names of its categories."""
    categories = {row["id"]: row["name"] for row in _rows(table, "categories", path, {"id": int, "name": str})}
    found: dict[int, set[str]] = {}
    for n, row in enumerate(_rows(table, "annotations", path, {"image_id": int, "category_id": int})):
        if row["category_id"] not in categories:
            raise BadFile(f"{path}: annotations[{n}] has category {row['category_id']}, which is not listed")
        if not row.get("iscrowd"):
            found.setdefault(row["image_id"], set()).add(categories[row["category_id"]])
    return found


def _own_captions(root: Path, split: str, names: Mapping[int, str]) -> dict[int, tuple[str, ...]]:
    """Image id to captions of a captions file beside the annotations; {} if there is none."""
    path = find_captions(root)
    if path is None:
        return {}
    numbers = {f"{split}/{name}": number for number, name in names.items()}
    found = {}
    for one in read_captions(path, ("image",)):
        if one.image not in numbers:
            raise BadFile(f"{one.where}: {_instances(root, split)} lists no image {one.image!r}")
        found[numbers[one.image]] = one.captions
    return found


def _captions(root: Path, split: str) -> dict[int, tuple[str, ...]]:
    """Image id to COCO's captions."""
    path = root / "annotations" / f"captions_{split}.json"
    if not path.is_file():
        raise Unavailable(f"{path} does not exist", _where_from(root))
    found: dict[int, list[str]] = {}
    for row in _rows(read_json(path), "annotations", path, {"image_id": int, "caption": str}):
        if text := " ".join(row["caption"].split()):  # some have line breaks and blanks at their ends
            found.setdefault(row["image_id"], []).append(text)
    return {number: tuple(texts) for number, texts in found.items()}


def _check_images(folder: Path, numbers: Sequence[int], names: Mapping[int, str], path: Path) -> None:
    """Raises BadFile for an image that is not listed or not there; one look at the folder, not one an image."""
    try:
        there = set(os.listdir(folder))
    except OSError as error:
        raise Unavailable(f"cannot read {folder}: {error.strerror}", _where_from(folder.parent)) from None
    for number in numbers:
        if number not in names:
            raise BadFile(f"{path}: image {number} has an annotation but is not listed in 'images'")
        if names[number] not in there:
            raise BadFile(f"{path}: image {number}: {folder / names[number]} does not exist")


def _rows(table: Any, key: str, path: Path, kinds: Mapping[str, type]) -> list[dict[str, Any]]:
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
