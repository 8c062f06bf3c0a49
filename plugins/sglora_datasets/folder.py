"""A folder with images and a captions.jsonl or captions.csv (see `read_captions` of the api).

Images without captions are found, for a captioner, in folders named after their tasks, images/TASK/1.jpg, or
images/train/TASK/1.jpg and images/test/TASK/1.jpg; an underscore in a task's folder stands for a space, and folders
within it belong to the task. Without train and test one image in five is for testing, by the SHA-256 of its name.
Or a names.jsonl says what they show, one line an image: {"image": "images/1.jpg", "name": "pug"}, with "split" if you
like; then the folders do not count. What a captions file says of an image's task and split is taken from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.api import (
    CAPTIONS_CSV,
    CAPTIONS_JSONL,
    SPLITS,
    BadFile,
    Listed,
    NamedOnce,
    Photo,
    Task,
    Unavailable,
    find_captions,
    image_endings,
    jsonl_rows,
    other_images,
    plain_name,
    read_captions,
    visible_files,
)

from .tasks import Row, classified, existing, gathered, once, split_of

IMAGES, NAMES = "images", "names.jsonl"


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
        rows = {row.image: row for row in _uncaptioned(root)}
        path = find_captions(root)
        for one in read_captions(path) if path and path.stat().st_size else []:
            rows[one.image] = Row(one.image, one.task, one.split, one.where)
        if not rows:
            raise Unavailable(
                f"{root} has no {NAMES}, no captions and no image in {IMAGES}/TASK",
                "put each task's images into a folder of its name",
            )
        return [
            Listed(r.image, existing(root, r.image, r.where), (r.task,), r.split) for r in once(root, rows.values())
        ]

    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        """Images without captions, those that nothing names and those that are not decoded; a hidden captions.csv."""
        path = find_captions(root)
        named = {one.image for one in read_captions(path)} if path and path.stat().st_size else set()
        waiting = {row.image for row in _uncaptioned(root)} - named
        yield from ((image, "images without captions") for image in sorted(waiting))
        source = path.name if path else NAMES if (root / NAMES).is_file() else ""
        reason = f"images that {source} does not name" if source else f"images in no folder {IMAGES}/TASK"
        yield from other_images(root, named | waiting, reason)
        if path and path.name == CAPTIONS_JSONL and (root / CAPTIONS_CSV).is_file():
            yield CAPTIONS_CSV, f"captions files beside {CAPTIONS_JSONL}, which is read in their place"


def _uncaptioned(root: Path) -> Iterator[Row]:
    """Images of names.jsonl, else of the folders."""
    return _named(root) if (root / NAMES).is_file() else _in_folders(root)


def _in_folders(root: Path) -> Iterator[Row]:
    top = root / IMAGES
    paths = [path for path in visible_files(top) if path.suffix.lower() in image_endings()] if top.is_dir() else []
    places = {path: path.relative_to(top).parts for path in paths}
    by_split = _by_split(places.values())
    for path in sorted(paths):
        *folders, _ = places[path]
        if len(folders) < 1 + by_split or (by_split and folders[0] not in SPLITS):
            continue
        image = path.relative_to(root).as_posix()
        side = folders[0] if by_split else split_of(image)
        yield Row(image, folders[by_split].replace("_", " "), side, str(top))


def _by_split(places: Iterable[Sequence[str]]) -> bool:
    """Whether the first folders are splits and the second ones tasks; a task may be called "train", too.

    They are if there are no others, or if others (as "val") have folders within them and those of splits nothing else.
    """
    depths: dict[str, set[bool]] = {}
    for first, *rest in places:
        if rest:
            depths.setdefault(first, set()).add(len(rest) > 1)
    splits = depths.keys() & set(SPLITS)
    nested = all(depths[name] == {True} if name in splits else True in depths[name] for name in depths)
    return bool(splits) and (depths.keys() <= set(SPLITS) or nested)


def _named(root: Path) -> Iterator[Row]:
    path, names = root / NAMES, NamedOnce(root)
    for number, line, row in jsonl_rows(path):
        where = f"{path}, line {number}"
        image, name = row.get("image"), row.get("name")
        if not (isinstance(image, str) and isinstance(name, str) and image.strip() and name.strip()):
            raise BadFile(f"{where}: expected an image and a name, got {line!r:.100}")
        names.add(image, where, f"line {number}")
        image = plain_name(image)
        split = row.get("split", split_of(image))
        if split not in SPLITS:
            raise BadFile(f"{where}: 'split' must be one of {', '.join(SPLITS)}, got {split!r}")
        yield Row(image, name, split, where)


def _by_name(task: Task) -> str:
    return task.name
