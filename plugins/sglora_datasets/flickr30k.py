"""Flickr30K as one task, `flickr30k`, from the first of these annotations that is present:

* dataset_flickr30k.json: Karpathy's sentences and splits (see karpathy.py);
* flickr30k_{train,test}_karpathy.txt: CLIP_benchmark's version, lines `1.jpg,caption` below a header;
* results_20130124.token: the publisher's, lines `1.jpg#0<TAB>caption`. It has no splits, so one image in five is
  for testing, by the SHA-256 of its name.
Images are in flickr30k-images/, flickr30k_images/ or images/, or beside the annotation. The task is not a category, so
set a `description` for its source in the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.api import (
    BadFile,
    Captioned,
    FetchPlan,
    NamedOnce,
    Photo,
    Task,
    Unavailable,
    inside,
    other_images,
    plain_name,
    text_lines,
)

from .karpathy import left_out, read_karpathy
from .tasks import gathered, split_of

NAME = "flickr30k"
FOLDERS = ("flickr30k-images", "flickr30k_images", "images")
KARPATHY = "dataset_flickr30k.json"
TABLES = {"train": "flickr30k_train_karpathy.txt", "test": "flickr30k_test_karpathy.txt"}
TOKENS = "results_20130124.token"


@dataclass(frozen=True)
class Flickr30k:
    name: str = NAME
    summary: str = "Flickr30K (Karpathy's JSON, CLIP_benchmark's tables or token file), one task"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Return the task. Raises Unavailable without annotation or images, BadFile with path and line for an error."""
        folder = _folder(root)
        named, photos, missing = NamedOnce(folder), [], 0
        for one in _images(root):
            named.add(one.image, one.where)
            if (path := inside(folder, one.image)).is_file():
                photos.append((NAME, one.split, Photo(path, one.captions)))
            else:
                missing += 1
        if missing and not photos:
            raise Unavailable(f"{folder} has none of the {missing} images named in the annotation", _where_from(root))
        if not photos:
            raise BadFile(f"{root}: the annotation names no image")
        return gathered(root, photos)

    def image_counts(self, root: Path) -> tuple[int, int]:
        """Count the images named in the annotation."""
        there = [inside(_folder(root), one.image).is_file() for one in _images(root)]
        return sum(there), len(there)

    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        """Yield Karpathy's `val` images, and images that the annotation does not name."""
        path = root / KARPATHY
        others = [image for image, _ in left_out(path)] if path.is_file() else []
        yield from ((image, "images of Karpathy's split `val`") for image in others)
        known = {*others, *(plain_name(one.image) for one in _images(root))}
        yield from other_images(_folder(root), known, "images not named in the annotation")

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Raise Unavailable with instructions, because its photos are only available on request."""
        raise Unavailable("sglora may not download Flickr30K", _where_from(data / NAME))

    def fetch_plan(self, data: Path) -> FetchPlan:
        """Raise Unavailable like `fetch`."""
        raise Unavailable("sglora may not download Flickr30K", _where_from(data / NAME))


def _folder(root: Path) -> Path:
    return next((root / name for name in FOLDERS if (root / name).is_dir()), root)


def _where_from(root: Path) -> str:
    return (
        "request the photos at https://shannon.cs.illinois.edu/DenotationGraph/ and put them into "
        f"{root / FOLDERS[0]}, and {KARPATHY} from https://cs.stanford.edu/people/karpathy/deepimagesent/ "
        f"(or {TOKENS}, which comes with the photos) into {root}"
    )


def _images(root: Path) -> Iterable[Captioned]:
    """Return images with their captions from the annotation that is present."""
    if (root / KARPATHY).is_file():
        return read_karpathy(root / KARPATHY)
    tables = {split: root / name for split, name in TABLES.items() if (root / name).is_file()}
    if tables:
        return _tables(tables)
    if (root / TOKENS).is_file():
        return _tokens(root / TOKENS)
    raise Unavailable(f"{root} has no {KARPATHY}, {TABLES['test']} or {TOKENS}", _where_from(root))


def _tables(paths: Mapping[str, Path]) -> list[Captioned]:
    entries: list[Captioned] = []
    for split, path in paths.items():
        rows = []
        for number, line in text_lines(path)[1:]:
            image, mark, caption = line.partition(".jpg,")  # captions may contain commas and are not quoted
            rows.append((number, f"{image}.jpg" if mark else "", caption, split))
        entries += _joined(path, rows)
    return entries


def _tokens(path: Path) -> list[Captioned]:
    rows = []
    for number, line in text_lines(path):
        name, mark, caption = line.partition("\t")
        image, sign, _ = name.partition("#")
        rows.append((number, image if mark and sign else "", caption, split_of(plain_name(image))))
    return _joined(path, rows)


def _joined(path: Path, rows: Iterable[tuple[int, str, str, str]]) -> list[Captioned]:
    """Join (line, image, caption, split), one row per caption, into one entry per image."""
    entries: dict[str, tuple[str, str, list[str]]] = {}
    for number, image, caption, split in rows:
        where = f"{path}, line {number}"
        text = " ".join(caption.split())
        if not image or not text:
            raise BadFile(f"{where}: expected an image and a caption")
        entries.setdefault(image, (where, split, []))[2].append(text)
    return [Captioned(where, image, tuple(texts), "", split) for image, (where, split, texts) in entries.items()]
