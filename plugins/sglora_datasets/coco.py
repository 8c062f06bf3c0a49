"""MS-COCO: annotations/{captions,instances}_SPLIT.json and SPLIT/000000000009.jpg, optionally with Karpathy's splits.

A task is a category. The paper uses "COCO (its training split, re-split)" without details. Here
* SPLIT is the first of train2017, train2014, val2017, val2014 with photos and instances, unless the data set
  names one, as in `coco:val2017`;
* an image belongs to every category of which it has an instance; crowds (`iscrowd`) do not count;
* one image in five is for testing, by the SHA-256 of its id. An image is on the same side in every
  task, so no task trains on a test image of another;
* photos are in the order of that hash, so that the first hundred are a random sample;
* captions are COCO's, or those of a captions.jsonl beside `annotations` (for example written by a
  vision-language model). In the latter case images it does not name are left out, so captions are of one kind;
* annotated images that do not exist are left out, and `image_counts` reports them.

A folder with dataset_coco.json (Karpathy's) or coco_{train,test}_karpathy.json (CLIP_benchmark's version in COCO's
format, with photos of `train` in train2014 and of `test` in val2014) takes splits and captions from there, in this
order of preference. Categories always come from the instances files of all splits present.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from sglora_cli.api import (
    BadFile,
    FetchPlan,
    Listed,
    Photo,
    Task,
    Unavailable,
    UnknownName,
    coco_images,
    coco_rows,
    find_captions,
    other_images,
    plain_name,
    read_captions,
    read_json,
)

from .download import Remote
from .karpathy import left_out, read_karpathy_coco
from .published import Piece, Published
from .tasks import gathered, hashed, split_of

SPLITS = ("train2017", "train2014", "val2017", "val2014")
NAME, KARPATHY = "coco", "dataset_coco.json"
SITE = "http://images.cocodataset.org"
SIZES = {  # bytes of the archives, from this server's Content-Length
    "train2017": 19_336_861_798,
    "val2017": 815_585_330,
    "train2014": 13_510_573_713,
    "val2014": 6_645_013_297,
    "annotations_trainval2017": 252_907_541,
    "annotations_trainval2014": 252_872_794,
}
_LIMIT = 2 << 30  # bytes; instances_train2017.json has 449 million


class Row(NamedTuple):
    """An image named by an annotation."""

    number: int
    image: str
    """SPLIT/FILE, relative to the data set's folder. FILE may have folders of its own."""
    side: str
    captions: tuple[str, ...]
    where: str
    """The annotation file and entry, for error messages."""


@dataclass(frozen=True)
class Coco:
    name: str = "coco"
    summary: str = "MS-COCO with its own or Karpathy's splits, a task per category"
    split: str = ""
    """The split to use, or "" for the first one that is present."""

    def member(self, name: str) -> Coco:
        """Return the data set with one split, such as `coco:val2017`. Raises UnknownName."""
        if name not in SPLITS:
            raise UnknownName.of("split of COCO", name, SPLITS)
        return replace(self, name=f"{self.name}:{name}", split=name)

    def tasks(self, root: Path) -> Sequence[Task]:
        """Return every category with a captioned image, sorted. Images are not opened.

        Raises Unavailable if a file or all images are missing, BadFile for an invalid file.
        """
        rows, members = self._rows(root)
        captions = _captions_of(root, rows)
        chosen = [row for row in rows if row.number in members and captions.get(row.number)]
        if not chosen:
            raise BadFile(f"{rows[0].where if rows else root}: no image has an instance and a caption")
        return gathered(
            root,
            (
                (category, row.side, Photo(root / row.image, captions[row.number]))
                for row in _there(root, chosen)
                for category in members[row.number]
            ),
        )

    def images(self, root: Path) -> Sequence[Listed]:
        """Return every image with an instance, in the order of `tasks`. Like `tasks`, but needs no captions."""
        rows, members = self._rows(root, captions=False)
        rows = _there(root, [row for row in rows if row.number in members])
        return [Listed(row.image, root / row.image, tuple(sorted(members[row.number])), row.side) for row in rows]

    def image_counts(self, root: Path) -> tuple[int, int]:
        """Count all images named by the annotations."""
        rows, _ = self._rows(root, captions=False)
        return len(_present(root, rows)), len(rows)

    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        """Yield images without an instance or a caption, Karpathy's `val` images, and files not in any annotation."""
        rows, members = self._rows(root)
        captions = _captions_of(root, rows)
        for row in _present(root, rows):
            if row.number not in members:
                yield row.image, "images without an instance of any category"
            elif not captions.get(row.number):
                yield row.image, "images without captions"
        others = [] if self.split or (path := _karpathy_file(root)) is None else [image for _, image in left_out(path)]
        yield from ((image, "images of Karpathy's split `val`") for image in others)
        names = {*others, *(row.image for row in rows)}
        for split in sorted({name.partition("/")[0] for name in names}):
            known = {name.removeprefix(f"{split}/") for name in names if name.startswith(f"{split}/")}
            for name, reason in other_images(root / split, known, "images not listed in any annotation"):
                yield f"{split}/{name}", reason

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Download annotations and photos of a split, resuming by bytes.

        The split is the requested one, otherwise those of Karpathy's file if present, otherwise train2017.
        """
        note("COCO publishes no checksums, so each ZIP is checked with its internal checksums")
        return self._published(data / NAME).fetch(note)

    def fetch_plan(self, data: Path) -> FetchPlan:
        return self._published(data / NAME).plan()

    def _published(self, root: Path) -> Published:
        karpathy = [] if self.split else _karpathy_rows(root)
        splits = sorted({row.image.partition("/")[0] for row in karpathy} & set(SPLITS)) or [self.split or SPLITS[0]]
        kinds = ("instances",) if karpathy else ("captions", "instances")
        lists = [root / "annotations" / f"{kind}_{split}.json" for split in splits for kind in kinds]

        def listed() -> bool:
            return all(path.is_file() for path in lists)

        def complete(split: str) -> bool:
            if not (karpathy or listed()) or not (root / split).is_dir():
                return False
            rows = karpathy or replace(self, split=split)._rows(root, captions=False)[0]
            own = [row for row in rows if row.image.startswith(f"{split}/")]
            return len(_present(root, own)) == len(own)

        archive = f"annotations_trainval{splits[0][-4:]}"
        annotations = Remote(f"{SITE}/annotations/{archive}.zip", size=SIZES[archive])
        photos = [
            Piece(Remote(f"{SITE}/zips/{split}.zip", size=SIZES[split]), partial(complete, split)) for split in splits
        ]
        return Published(root, [Piece(annotations, listed, _is_list), *photos], root)

    def _rows(self, root: Path, captions: bool = True) -> tuple[list[Row], dict[int, set[str]]]:
        """Return images in the order of their hashes, and the categories of those with an instance."""
        rows = [] if self.split else _karpathy_rows(root)
        splits = [s for s in SPLITS if _instances(root, s).is_file()] if rows else [self.split or _split(root)]
        members: dict[int, set[str]] = {}
        for split in splits:
            path = _instances(root, split)
            if not path.is_file():
                raise Unavailable(f"{path} does not exist", _where_from(root, split))
            facts = os.stat(path)
            table, categories = _read_instances(path, (facts.st_mtime_ns, facts.st_size, facts.st_ino))
            for number, some in categories.items():
                members.setdefault(number, set()).update(some)
            if not rows:
                texts = _captions(root, split) if captions and not find_captions(root) else {}
                rows = _own_rows(table, path, split, members, texts)
        if not splits:
            raise Unavailable(f"{_instances(root, SPLITS[1])} does not exist", "Karpathy's files have no categories")
        return sorted(rows, key=lambda row: hashed(row.number)), members


def _is_list(name: str) -> bool:
    """Return whether an entry of the annotations archive is needed."""
    return Path(name).name.startswith(("captions_", "instances_"))


def _where_from(root: Path, split: str = SPLITS[0]) -> str:
    year = split[-4:]
    return (
        f"put the photos of {SITE}/zips/{split}.zip into {root / split}, and captions_{split}.json and "
        f"instances_{split}.json of {SITE}/annotations/annotations_trainval{year}.zip into {root / 'annotations'}"
    )


def _split(root: Path) -> str:
    """Return the first split with photos and instances, or the first with instances if none has both."""
    listed = [split for split in SPLITS if _instances(root, split).is_file()]
    if not listed:
        raise Unavailable(f"{_instances(root, SPLITS[0])} does not exist", _where_from(root))
    return next((split for split in listed if (root / split).is_dir()), listed[0])


@lru_cache(maxsize=1)
def _read_instances(path: Path, state: tuple[int, ...]) -> tuple[dict[str, Any], dict[int, set[str]]]:
    """Read a file without its instances, and map image id -> names of its categories. Raises BadFile.

    The file has half a gigabyte, so the result is cached while its `state` stays the same.
    """
    table = read_json(path, _slim, _LIMIT)
    members = _members(table, path)
    return {key: value for key, value in table.items() if key == "images"}, members


def _own_rows(
    table: dict[str, Any],
    path: Path,
    split: str,
    members: Mapping[int, set[str]],
    captions: Mapping[int, tuple[str, ...]],
) -> list[Row]:
    """Return the images of COCO's own files. Raises BadFile for an annotated image that is not listed."""
    names = coco_images(table, path)
    for number in sorted(members, key=hashed):
        if number not in names:
            raise BadFile(f"{path}: image {number} has an annotation but is not in 'images'")
    return [
        Row(n, f"{split}/{plain_name(name)}", split_of(n), captions.get(n, ()), str(path)) for n, name in names.items()
    ]


def _karpathy_rows(root: Path) -> list[Row]:
    """Return images of Karpathy's file, otherwise of CLIP_benchmark's two files, or [] without either."""
    if (path := _karpathy_file(root)) is not None:
        return [
            Row(number, plain_name(f"{folder}/{one.image}"), one.split, one.captions, one.where)
            for one, folder, number in read_karpathy_coco(path)
        ]
    rows = []
    for side, folder in (("train", "train2014"), ("test", "val2014")):
        if (path := root / f"coco_{side}_karpathy.json").is_file():
            table = read_json(path, limit=_LIMIT)
            texts = _texts(table, path)
            rows += [
                Row(number, f"{folder}/{plain_name(name)}", side, texts.get(number, ()), str(path))
                for number, name in coco_images(table, path).items()
            ]
    return rows


def _karpathy_file(root: Path) -> Path | None:
    return next((path for path in (root / KARPATHY, root / "annotations" / KARPATHY) if path.is_file()), None)


def _instances(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def _slim(row: dict[str, Any]) -> dict[str, Any]:
    """Drop an object's outline. Outlines are nine tenths of an instances file."""
    row.pop("segmentation", None)
    return row


def _members(table: Any, path: Path) -> dict[int, set[str]]:
    """Map image id -> names of its categories."""
    categories = {row["id"]: row["name"] for row in coco_rows(table, "categories", path, {"id": int, "name": str})}
    members: dict[int, set[str]] = {}
    for n, row in enumerate(coco_rows(table, "annotations", path, {"image_id": int, "category_id": int})):
        if row["category_id"] not in categories:
            raise BadFile(f"{path}: annotations[{n}] has category {row['category_id']}, which is not listed")
        if not row.get("iscrowd"):
            members.setdefault(row["image_id"], set()).add(categories[row["category_id"]])
    return members


def _captions_of(root: Path, rows: Sequence[Row]) -> dict[int, tuple[str, ...]]:
    """Map image id -> captions, from a captions file if there is one, otherwise from the rows."""
    return _own(own, rows) if (own := find_captions(root)) else {row.number: row.captions for row in rows}


def _own(path: Path, rows: Sequence[Row]) -> dict[int, tuple[str, ...]]:
    """Map image id -> captions of a captions file beside the annotations. Raises BadFile with path and line."""
    numbers = {row.image: row.number for row in rows}
    captions = {}
    for one in read_captions(path, ("image",)):
        if one.image not in numbers:
            raise BadFile(f"{one.where}: image {one.image!r} is not in any annotation")
        captions[numbers[one.image]] = one.captions
    return captions


def _captions(root: Path, split: str) -> dict[int, tuple[str, ...]]:
    """Map image id -> COCO's captions."""
    path = root / "annotations" / f"captions_{split}.json"
    if not path.is_file():
        raise Unavailable(f"{path} does not exist", _where_from(root, split))
    return _texts(read_json(path, limit=_LIMIT), path)


def _texts(table: Any, path: Path) -> dict[int, tuple[str, ...]]:
    captions: dict[int, list[str]] = {}
    for row in coco_rows(table, "annotations", path, {"image_id": int, "caption": str}):
        if text := " ".join(row["caption"].split()):  # some have line breaks, or spaces at the ends
            captions.setdefault(row["image_id"], []).append(text)
    return {number: tuple(texts) for number, texts in captions.items()}


def _there(root: Path, rows: Sequence[Row]) -> list[Row]:
    """Return the images that exist. Raises Unavailable if there are none, and the errors of `_present`."""
    if found := _present(root, rows):
        return found
    split = rows[0].image.partition("/")[0] if rows else SPLITS[0]
    raise Unavailable(f"{root} has none of the {len(rows)} images named in its annotations", _where_from(root, split))


def _present(root: Path, rows: Sequence[Row]) -> list[Row]:
    """Return the images that exist, listing each folder once instead of checking each image.

    Raises BadFile for a name outside COCO's folders, Unavailable for a folder that cannot be read.
    """
    names: dict[str, set[str]] = {}
    found = []
    for row in rows:
        folder, _, name = row.image.rpartition("/")
        split, *inner = row.image.split("/")
        if split not in SPLITS:
            raise BadFile(f"{row.where}: image {row.number}: {row.image!r} is not in a folder of COCO")
        if ".." in inner:
            raise BadFile(f"{row.where}: image {row.number}: {row.image!r} leads outside its folder")
        if folder not in names:
            names[folder] = _names_in(root, folder, split)
        if name in names[folder]:
            found.append(row)
        elif "\\" in name:
            raise BadFile(
                f"{row.where}: image {row.number}: {root / row.image} does not exist", "use / between folders"
            )
    return found


def _names_in(root: Path, folder: str, split: str) -> set[str]:
    try:
        return set(os.listdir(root / folder))
    except FileNotFoundError:
        return set()
    except NotADirectoryError as error:
        if folder != split:
            return set()
        raise Unavailable(f"cannot read {root / split}: {error.strerror}", _where_from(root, split)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL
        raise Unavailable(f"cannot read {root / folder}: {error}", _where_from(root, split)) from None
