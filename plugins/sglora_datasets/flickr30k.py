"""Flickr30K: one task, `flickr30k`, from whichever annotation is there; the first of these is taken.

* dataset_flickr30k.json: Karpathy's sentences and splits (see karpathy.py);
* flickr30k_{train,test}_karpathy.txt: the same as CLIP_benchmark keeps it, lines `1.jpg,caption` below a header;
* results_20130124.token: the publisher's, lines `1.jpg#0<TAB>caption`; it has no splits, so one image in five is
  for testing, by the SHA-256 of its name.
Images lie in flickr30k-images/, flickr30k_images/ or images/, or beside the annotation. The task is no category: give
its source a `description` in the recipe.
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
    summary: str = "Flickr30K: Karpathy's JSON, CLIP_benchmark's tables or the token file; one task"

    def tasks(self, root: Path) -> Sequence[Task]:
        """The one task. Raises Unavailable without annotation or images, BadFile with path and line for an error."""
        folder = _folder(root)
        named, photos, missing = NamedOnce(folder), [], 0
        for one in _images(root):
            named.add(one.image, one.where)
            if (path := inside(folder, one.image)).is_file():
                photos.append((NAME, one.split, Photo(path, one.captions)))
            else:
                missing += 1
        if missing and not photos:
            raise Unavailable(f"{folder} has none of the {missing} images that the annotation names", _where_from(root))
        if not photos:
            raise BadFile(f"{root}: the annotation names no image")
        return gathered(root, photos)

    def image_counts(self, root: Path) -> tuple[int, int]:
        """Of the images that the annotation names."""
        there = [inside(_folder(root), one.image).is_file() for one in _images(root)]
        return sum(there), len(there)

    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        """Images of Karpathy's `val`, and images that the annotation does not name."""
        path = root / KARPATHY
        others = [image for image, _ in left_out(path)] if path.is_file() else []
        yield from ((image, "images of Karpathy's split `val`") for image in others)
        known = {*others, *(plain_name(one.image) for one in _images(root))}
        yield from other_images(_folder(root), known, "images that the annotation does not name")

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Raises Unavailable, saying what to put where: its photos are given to who asks for them."""
        raise Unavailable("Flickr30K may not be downloaded by this program", _where_from(data / NAME))

    def fetch_plan(self, data: Path) -> FetchPlan:
        """Raises as `fetch` does."""
        raise Unavailable("Flickr30K may not be downloaded by this program", _where_from(data / NAME))


def _folder(root: Path) -> Path:
    return next((root / name for name in FOLDERS if (root / name).is_dir()), root)


def _where_from(root: Path) -> str:
    return (
        "ask for the photos at https://shannon.cs.illinois.edu/DenotationGraph/ and put them into "
        f"{root / FOLDERS[0]}, and {KARPATHY} of https://cs.stanford.edu/people/karpathy/deepimagesent/ "
        f"(or {TOKENS}, which comes with the photos) into {root}"
    )


def _images(root: Path) -> Iterable[Captioned]:
    """Images with their captions, from the annotation that is there."""
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
            image, mark, caption = line.partition(".jpg,")  # a caption may have commas, and is not quoted
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
    """(line, image, caption, split), a row a caption -> an entry an image."""
    entries: dict[str, tuple[str, str, list[str]]] = {}
    for number, image, caption, split in rows:
        where = f"{path}, line {number}"
        text = " ".join(caption.split())
        if not image or not text:
            raise BadFile(f"{where}: expected an image and a caption")
        entries.setdefault(image, (where, split, []))[2].append(text)
    return [Captioned(where, image, tuple(texts), "", split) for image, (where, split, texts) in entries.items()]
