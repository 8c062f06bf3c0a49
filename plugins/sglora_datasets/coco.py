"""MS-COCO: annotations/{captions,instances}_SPLIT.json and SPLIT/000000000009.jpg; or Karpathy's splits of it.

A task is a category. The paper takes "COCO (its training split, re-split)", and leaves the rest open; here
* SPLIT is the first of train2017, train2014, val2017, val2014 of which photos and instances are there; a data set
  named `coco:val2017` takes that one;
* an image belongs to every category of which it has an instance; crowds (`iscrowd`) do not count;
* one image in five is for testing, by the SHA-256 of its id: the same image is on the same side in every
  task, so no task's training can see a test image of another;
* photos stand in the order of that hash, so that the first hundred are a fair sample;
* captions are COCO's, or those of a captions.jsonl beside `annotations` (as a vision-language model wrote
  them); then images it does not name are left out, and a task has captions of one kind;
* an image that is named and not there is in no task: `image_counts` says how many there are.

A folder with dataset_coco.json (Karpathy's) or coco_{train,test}_karpathy.json (the same as CLIP_benchmark keeps it, in
COCO's own format, photos of `train` in train2014 and of `test` in val2014) has its sides and captions from there, in
this order; categories still come from the instances files, of all splits that are there.
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
    Terms,
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
SIZES = {  # bytes of the archives, as the Content-Length of this server said
    "train2017": 19_336_861_798,
    "val2017": 815_585_330,
    "train2014": 13_510_573_713,
    "val2014": 6_645_013_297,
    "annotations_trainval2017": 252_907_541,
    "annotations_trainval2014": 252_872_794,
}
IMAGES = {"train2017": 118_287, "val2017": 5_000, "train2014": 82_783, "val2014": 40_504}
_TERMS_PAGE = "https://cocodataset.org/#termsofuse"
TERMS = (
    Terms("photos", "the terms of use of Flickr; COCO does not own their copyright", _TERMS_PAGE),
    Terms("annotations and captions", "CC BY 4.0", _TERMS_PAGE),
)
_LIMIT = 2 << 30  # bytes; instances_train2017.json has 449 million


class Row(NamedTuple):
    """An image as an annotation names it."""

    number: int
    image: str
    """SPLIT/FILE, below the data set's folder; FILE may lie in folders of its own."""
    side: str
    captions: tuple[str, ...]
    where: str
    """The annotation, for errors."""


@dataclass(frozen=True)
class Coco:
    name: str = "coco"
    summary: str = "MS-COCO in its own files, or with Karpathy's splits; a task a category"
    split: str = ""
    """The one to take; "" for the first that is there."""

    def member(self, name: str) -> Coco:
        """`coco:val2017`. Raises UnknownName."""
        if name not in SPLITS:
            raise UnknownName.of("split of COCO", name, SPLITS)
        return replace(self, name=f"{self.name}:{name}", split=name)

    def tasks(self, root: Path) -> Sequence[Task]:
        """Every category with a captioned image, sorted.

        Raises Unavailable if a file is missing, or all images, BadFile for a file that is not what COCO's is. Images
        are not opened here.
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
        """Every image with an instance, in the order of `tasks`. Raises as `tasks` does, but needs no captions."""
        rows, members = self._rows(root, captions=False)
        rows = _there(root, [row for row in rows if row.number in members])
        return [Listed(row.image, root / row.image, tuple(sorted(members[row.number])), row.side) for row in rows]

    def image_counts(self, root: Path) -> tuple[int, int]:
        """Of all images that the annotations name."""
        rows, _ = self._rows(root, captions=False)
        return len(_present(root, rows)), len(rows)

    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        """Images without an instance or a caption, those of Karpathy's `val`, and files that no annotation lists."""
        rows, members = self._rows(root)
        captions = _captions_of(root, rows)
        for row in _present(root, rows):
            if row.number not in members:
                yield row.image, "images without an instance of a category"
            elif not captions.get(row.number):
                yield row.image, "images without captions"
        others = [] if self.split or (path := _karpathy_file(root)) is None else [image for _, image in left_out(path)]
        yield from ((image, "images of Karpathy's split `val`") for image in others)
        names = {*others, *(row.image for row in rows)}
        for split in sorted({name.partition("/")[0] for name in names}):
            known = {name.removeprefix(f"{split}/") for name in names if name.startswith(f"{split}/")}
            for name, reason in other_images(root / split, known, "images that no annotation lists"):
                yield f"{split}/{name}", reason

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Download annotations and photos of a split: the one that was named, else those of Karpathy's file if it is
        there, else train2017. It is resumed by bytes."""
        note("COCO publishes no checksums that this program knows: each zip is checked by those it carries")
        return self._published(data / NAME).fetch(note)

    def fetch_plan(self, data: Path) -> FetchPlan:
        return self._published(data / NAME).plan()

    def terms(self) -> Sequence[Terms]:
        return TERMS

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
        return Published(
            root, [Piece(annotations, listed, _is_list), *photos], root, images=sum(IMAGES[split] for split in splits)
        )

    def _rows(self, root: Path, captions: bool = True) -> tuple[list[Row], dict[int, set[str]]]:
        """Images in the order of their hashes, and the categories of those with an instance."""
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
            raise Unavailable(f"{_instances(root, SPLITS[1])} does not exist", "Karpathy's files name no categories")
        return sorted(rows, key=lambda row: hashed(row.number)), members


def _is_list(name: str) -> bool:
    """Whether an entry of the annotations is read here."""
    return Path(name).name.startswith(("captions_", "instances_"))


def _where_from(root: Path, split: str = SPLITS[0]) -> str:
    year = split[-4:]
    return (
        f"put the photos of {SITE}/zips/{split}.zip into {root / split}, and captions_{split}.json and "
        f"instances_{split}.json of {SITE}/annotations/annotations_trainval{year}.zip into {root / 'annotations'}"
    )


def _split(root: Path) -> str:
    """The first split with photos and instances; the first with instances if none has both."""
    listed = [split for split in SPLITS if _instances(root, split).is_file()]
    if not listed:
        raise Unavailable(f"{_instances(root, SPLITS[0])} does not exist", _where_from(root))
    return next((split for split in listed if (root / split).is_dir()), listed[0])


@lru_cache(maxsize=1)
def _read_instances(path: Path, state: tuple[int, ...]) -> tuple[dict[str, Any], dict[int, set[str]]]:
    """A file without its instances, and image id to the names of its categories. Raises BadFile.

    It has half a gigabyte, so it is parsed once for as long as its `state` is the same.
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
    """Images of COCO's own files. Raises BadFile for an annotated image that is not listed."""
    names = coco_images(table, path)
    for number in sorted(members, key=hashed):
        if number not in names:
            raise BadFile(f"{path}: image {number} has an annotation but is not listed in 'images'")
    return [
        Row(n, f"{split}/{plain_name(name)}", split_of(n), captions.get(n, ()), str(path)) for n, name in names.items()
    ]


def _karpathy_rows(root: Path) -> list[Row]:
    """Images of Karpathy's file, else of CLIP_benchmark's two; [] if neither is there."""
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
    """An object without its outline: nine tenths of the instances file are outlines."""
    row.pop("segmentation", None)
    return row


def _members(table: Any, path: Path) -> dict[int, set[str]]:
    """Image id to the names of its categories."""
    categories = {row["id"]: row["name"] for row in coco_rows(table, "categories", path, {"id": int, "name": str})}
    members: dict[int, set[str]] = {}
    for n, row in enumerate(coco_rows(table, "annotations", path, {"image_id": int, "category_id": int})):
        if row["category_id"] not in categories:
            raise BadFile(f"{path}: annotations[{n}] has category {row['category_id']}, which is not listed")
        if not row.get("iscrowd"):
            members.setdefault(row["image_id"], set()).add(categories[row["category_id"]])
    return members


def _captions_of(root: Path, rows: Sequence[Row]) -> dict[int, tuple[str, ...]]:
    """Image id to captions: those of a captions file where there is one, else of the rows."""
    return _own(own, rows) if (own := find_captions(root)) else {row.number: row.captions for row in rows}


def _own(path: Path, rows: Sequence[Row]) -> dict[int, tuple[str, ...]]:
    """Image id to captions of a captions file beside the annotations. Raises BadFile with path and line."""
    numbers = {row.image: row.number for row in rows}
    captions = {}
    for one in read_captions(path, ("image",)):
        if one.image not in numbers:
            raise BadFile(f"{one.where}: no annotation lists an image {one.image!r}")
        captions[numbers[one.image]] = one.captions
    return captions


def _captions(root: Path, split: str) -> dict[int, tuple[str, ...]]:
    """Image id to COCO's captions."""
    path = root / "annotations" / f"captions_{split}.json"
    if not path.is_file():
        raise Unavailable(f"{path} does not exist", _where_from(root, split))
    return _texts(read_json(path, limit=_LIMIT), path)


def _texts(table: Any, path: Path) -> dict[int, tuple[str, ...]]:
    captions: dict[int, list[str]] = {}
    for row in coco_rows(table, "annotations", path, {"image_id": int, "caption": str}):
        if text := " ".join(row["caption"].split()):  # some have line breaks and blanks at their ends
            captions.setdefault(row["image_id"], []).append(text)
    return {number: tuple(texts) for number, texts in captions.items()}


def _there(root: Path, rows: Sequence[Row]) -> list[Row]:
    """The images that are there. Raises Unavailable if none is, and as `_present` does."""
    if found := _present(root, rows):
        return found
    split = rows[0].image.partition("/")[0] if rows else SPLITS[0]
    raise Unavailable(f"{root} has none of the {len(rows)} images that its annotations name", _where_from(root, split))


def _present(root: Path, rows: Sequence[Row]) -> list[Row]:
    """The images that are there; one look at a folder, not one an image.

    Raises BadFile for a name that is in no folder of COCO's, Unavailable for a folder that cannot be read.
    """
    names: dict[str, set[str]] = {}
    found = []
    for row in rows:
        folder, _, name = row.image.rpartition("/")
        split, *inner = row.image.split("/")
        if split not in SPLITS:
            raise BadFile(f"{row.where}: image {row.number}: {row.image!r} is in no folder of COCO's")
        if ".." in inner:
            raise BadFile(f"{row.where}: image {row.number}: {row.image!r} leads out of its folder")
        if folder not in names:
            names[folder] = _names_in(root, folder, split)
        if name in names[folder]:
            found.append(row)
        elif "\\" in name:
            raise BadFile(
                f"{row.where}: image {row.number}: {root / row.image} does not exist", "write / between folders"
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
