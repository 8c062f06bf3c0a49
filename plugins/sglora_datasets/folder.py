"""A folder with images and a captions.jsonl or captions.csv (see `read_captions` of the api).

Images without captions are found, for a captioner, in folders named after their tasks, images/TASK/1.jpg, or
images/train/TASK/1.jpg and images/test/TASK/1.jpg; an underscore in a task's folder stands for a space. Without train
and test one image in five is for testing, by the SHA-256 of its name. Or a names.jsonl says what they show, one line an
image: {"image": "images/1.jpg", "name": "pug"}, with "split" if you like; then the folders do not count.
What a captions file says of an image's task and split is taken from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.api import (
    CAPTIONS_JSONL,
    SPLITS,
    BadFile,
    Listed,
    Photo,
    Task,
    Unavailable,
    find_captions,
    jsonl_rows,
    read_captions,
)

from .tasks import Row, classified, existing, gathered, listed, split_of

IMAGES, NAMES = "images", "names.jsonl"
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Folder:
    name: str = "folder"
    summary: str = "a folder with images and captions.jsonl or captions.csv"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Every task named in the file, sorted; its description is still the plain name.

        A task whose images have classes is a classification task. Raises Unavailable without a
        captions file, BadFile with path and line for anything wrong in it. Images are not opened
        here, but each must exist.
        """
        path = find_captions(root)
        if path is None:
            raise Unavailable(
                f"{root / CAPTIONS_JSONL} does not exist",
                "name a folder that holds captions.jsonl (or .csv) and its images",
            )
        rows = read_captions(path)
        sorts: dict[str, bool] = {}
        photos: dict[bool, list[tuple[str, str, Photo]]] = {False: [], True: []}
        for r in rows:
            if sorts.setdefault(r.task, r.has_class) != r.has_class:
                raise BadFile(f"{r.where}: task {r.task!r} has images with captions and images with classes")
            photos[r.has_class].append((r.task, r.split, Photo(existing(root, r.image, r.where), r.captions)))
        return sorted([*gathered(root, photos[False]), *classified(root, str(path), photos[True])], key=_by_name)

    def images(self, root: Path) -> Sequence[Listed]:
        """Every image with a task, captioned or not, sorted by its path; those of names.jsonl in its order.

        Raises Unavailable if there is none, BadFile with path and line for anything wrong.
        """
        rows = {row.image: row for row in (_named(root) if (root / NAMES).is_file() else _in_folders(root))}
        path = find_captions(root)
        for one in read_captions(path) if path and path.stat().st_size else []:
            rows[one.image] = Row(one.image, one.task, one.split, one.where)
        if not rows:
            raise Unavailable(
                f"{root} has no {NAMES}, no captions and no image in {IMAGES}/TASK",
                "put each task's images into a folder of its name",
            )
        return listed(root, rows.values())


def _in_folders(root: Path) -> Iterator[Row]:
    top = root / IMAGES
    names = {path.name for path in top.iterdir() if path.is_dir()} if top.is_dir() else set()
    by_split = bool(names) and names <= set(SPLITS)
    for path in sorted(top.glob("*/*/*" if by_split else "*/*")):
        if path.suffix.lower() in ENDINGS and path.is_file() and not path.name.startswith("."):
            image = path.relative_to(root).as_posix()
            split = path.parts[-3] if by_split else split_of(image)
            yield Row(image, path.parent.name.replace("_", " "), split, str(top))


def _named(root: Path) -> Iterator[Row]:
    path, seen = root / NAMES, set()
    for number, line, row in jsonl_rows(path):
        where = f"{path}, line {number}"
        image, name = row.get("image"), row.get("name")
        texts = isinstance(image, str) and isinstance(name, str) and image.strip() and name.strip()
        if not texts or image in seen:
            raise BadFile(f"{where}: expected an image that was not named before, and a name, got {line!r:.100}")
        seen.add(image)
        split = row.get("split", split_of(image))
        if split not in SPLITS:
            raise BadFile(f"{where}: 'split' must be one of {', '.join(SPLITS)}, got {split!r}")
        yield Row(str(image), str(name), split, where)


def _by_name(task: Task) -> str:
    return task.name
