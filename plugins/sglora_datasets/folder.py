"""A folder with images and a captions.jsonl or captions.csv (see `read_captions` of the API).

For captioners, images without captions are found in folders named after their tasks: TASK/1.jpg, or images/TASK/1.jpg
if there is a folder `images`. Underscores in a task's folder stand for spaces, and its subfolders belong to the task.
Split folders may be above: train/TASK/1.jpg and test/TASK/1.jpg. `val` is used for testing if there is no `test`.
Without splits, one image in five is for testing, by the SHA-256 of its name, and copies of an image are on the side of
the first copy. Alternatively, names.jsonl names the content, one image per line: {"image": "images/1.jpg", "name":
"pug"}, with an optional "split". The folders are then ignored. Task and split in a captions file take precedence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.api import (
    CAPTIONS_CSV,
    CAPTIONS_JSONL,
    SPLITS,
    BadFile,
    Captioned,
    Listed,
    NamedOnce,
    Photo,
    Task,
    Unavailable,
    find_captions,
    first_copies,
    image_endings,
    jsonl_rows,
    other_images,
    plain_name,
    printable_name,
    read_captions,
    shell_word,
    visible_files,
)

from . import flowers, pets
from .tasks import Row, classified, existing, gathered, once, split_of

IMAGES, NAMES = "images", "names.jsonl"
TRAIN, TEST = SPLITS
VALIDATION = "val"
_SIDES = {TRAIN: TRAIN, "training": TRAIN, TEST: TEST, "testing": TEST}
_SIDES |= dict.fromkeys((VALIDATION, "valid", "validation"), VALIDATION)
"""Recognised names of split folders in lower case."""
_NOT_UTF8 = "images whose names are not UTF-8 (rename them)"


@dataclass(frozen=True)
class Folder:
    name: str = "folder"
    summary: str = "a folder with images and captions.jsonl or captions.csv"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Return every task named in the file, sorted. The description of a task is its plain name.

        A task whose images have classes is a classification task. Raises Unavailable without a
        captions file, BadFile with path and line for invalid content. Images are not opened, but
        each must exist.
        """
        path = find_captions(root)
        if path is None:
            raise Unavailable(f"{root / CAPTIONS_JSONL if root.is_dir() else root} does not exist", _remedy(root))
        rows = read_captions(path)
        sorts: dict[str, bool] = {}
        photos: dict[bool, list[tuple[str, str, Photo]]] = {False: [], True: []}
        for r in rows:
            if sorts.setdefault(r.task, r.has_class) != r.has_class:
                raise BadFile(f"{r.where}: task {r.task!r} mixes images with captions and images with classes")
            photos[r.has_class].append((r.task, r.split, Photo(existing(root, r.image, r.where), r.captions)))
        return sorted([*gathered(root, photos[False]), *classified(root, str(path), photos[True])], key=_by_name)

    def images(self, root: Path) -> Sequence[Listed]:
        """Return every image with a task, captioned or not, sorted by path or in the order of names.jsonl.

        Raises Unavailable if there is none, BadFile with path and line for invalid content.
        """
        captions = _captioned(root)
        rows = {row.image: row for row in _uncaptioned(root, captions)}
        rows |= {one.image: Row(one.image, one.task, one.split, one.where) for one in captions}
        if not rows:
            raise Unavailable(
                f"{root} has no {NAMES}, no captions and no images in {_place_of(root)}",
                "put each task's images into a folder with its name",
            )
        return [
            Listed(r.image, existing(root, r.image, r.where), (r.task,), r.split) for r in once(root, rows.values())
        ]

    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        """Yield images without captions, unnamed or unreadable images, and a captions.csv that is not used."""
        path, captions = find_captions(root), _captioned(root)
        named = {one.image for one in captions}
        waiting = {row.image for row in _uncaptioned(root, captions)} - named
        yield from ((image, "images without captions") for image in sorted(waiting))
        unreadable = {image for path in _images(root) if not _is_text(image := path.relative_to(root).as_posix())}
        yield from ((printable_name(Path(image)), _NOT_UTF8) for image in sorted(unreadable))
        source = path.name if path else NAMES if (root / NAMES).is_file() else ""
        reason = f"images not named in {source}" if source else f"images outside folders {_place_of(root)}"
        yield from other_images(root, named | waiting | unreadable, reason)
        if path and path.name == CAPTIONS_JSONL and (root / CAPTIONS_CSV).is_file():
            yield CAPTIONS_CSV, f"captions files that are ignored because of {CAPTIONS_JSONL}"


def _remedy(root: Path) -> str:
    """Return how to get the captions of a folder, and its photos if they are missing, too."""
    bare = next(_uncaptioned(root), None) is not None
    place, data = shell_word(root), shell_word(root.parent)
    for name, folder, lists in ((pets.NAME, pets.FOLDER, "annotations"), (flowers.NAME, flowers.FOLDER, "setid.mat")):
        if root.name not in (name, folder):
            continue
        caption = f"sglora data caption {name} --path {place}"
        if (root / lists).exists():
            return f"write captions first with: {caption}"
        if not bare:
            move = "" if root.name == folder else f"rename {root.with_name(folder)} to {root.name}, "
            return f"sglora data fetch {name} --data {data}, {move}then {caption}"
    if bare:
        return f"write captions first with: sglora data caption folder --path {place}"
    return f"put photos with captions into {root}; `sglora docs how-to-data` explains the formats"


def _captioned(root: Path) -> list[Captioned]:
    """Read the captions file if there is one. It is empty while its first line is being written."""
    path = find_captions(root)
    return read_captions(path) if path and path.stat().st_size else []


def _uncaptioned(root: Path, captions: Iterable[Captioned] = ()) -> Iterator[Row]:
    """Yield images of names.jsonl, otherwise of the folders. `captions` gives the tasks of images in folders."""
    return _named(root) if (root / NAMES).is_file() else _in_folders(root, captions)


def _top(root: Path) -> Path:
    """Return the folder that contains the tasks' folders."""
    return root / IMAGES if (root / IMAGES).is_dir() else root


def _place_of(root: Path) -> str:
    """Return where a task's images belong, for messages."""
    return f"{IMAGES}/TASK" if (root / IMAGES).is_dir() else "TASK"


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in visible_files(folder) if path.suffix.lower() in image_endings()]


def _is_text(name: str) -> bool:
    """Return whether a name can be written into a captions file. Names that are not UTF-8 contain surrogates."""
    return name == name.encode(errors="ignore").decode()


def _in_folders(root: Path, captions: Iterable[Captioned]) -> Iterator[Row]:
    top = _top(root)
    paths = sorted(path for path in _images(top) if _is_text(path.relative_to(root).as_posix()))
    places = {path: path.relative_to(top).parts for path in paths}
    side_of = _sides(places.values())
    dealt = len(set(side_of.values())) < len(SPLITS)  # a single split does not define the other one
    first_of = first_copies(paths) if dealt else {}
    rows: list[tuple[tuple[str, ...], Row]] = []
    for path in paths:
        *folders, _ = places[path]
        if len(folders) < 1 + bool(side_of) or (side_of and folders[0] not in side_of):
            continue
        image = path.relative_to(root).as_posix()
        side = split_of(first_of[path].relative_to(root).as_posix()) if dealt else side_of[folders[0]]
        own = tuple(folders[: 1 + bool(side_of)])
        rows.append((own, Row(image, _task_name(own[-1]), side, str(top))))
    # Folders beside a captions file may contain photos of any task. They count as tasks if the file agrees for a photo.
    task_of = {one.image: one.task for one in captions} if top == root else {}
    if task_of and not any(task_of.get(row.image) == row.task for _, row in rows):
        return
    mixed = {own for own, row in rows if task_of.get(row.image, row.task) != row.task}
    yield from (row for own, row in rows if own not in mixed)


def _task_name(folder: str) -> str:
    """
    >>> _task_name("red_fox"), _task_name("_")
    ('red fox', '_')
    """
    return " ".join(folder.replace("_", " ").split()) or folder


def _sides(places: Iterable[Sequence[str]]) -> Mapping[str, str]:
    """Map first folder -> split, or {} if the first folders are tasks (which may also be named "train").

    They are splits if there are no other folders, or if the others (such as "extra") contain subfolders and the split
    folders contain only subfolders.
    """
    depths: dict[str, set[bool]] = {}
    for first, *rest in places:
        if rest:
            depths.setdefault(first, set()).add(len(rest) > 1)
    sides = {folder: _SIDES[folder.lower()] for folder in depths if folder.lower() in _SIDES}
    nested = all(depths[name] == {True} if sides.get(name) in SPLITS else True in depths[name] for name in depths)
    if not set(sides.values()) & set(SPLITS) or not (depths.keys() <= sides.keys() or nested):
        return {}
    tested = any(side == TEST and True in depths[name] for name, side in sides.items())
    return {name: TEST if side == VALIDATION else side for name, side in sides.items() if side in SPLITS or not tested}


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
