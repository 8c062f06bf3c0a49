"""A folder with images and a captions.jsonl or captions.csv (see captions.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.api import BadFile, Photo, Task, Unavailable

from .captions import JSONL, find_captions, read_captions
from .gathering import classified, existing, gathered


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
                f"{root / JSONL} does not exist", "name a folder that holds captions.jsonl (or .csv) and its images"
            )
        rows = read_captions(path)
        sorts: dict[str, bool] = {}
        photos: dict[bool, list[tuple[str, str, Photo]]] = {False: [], True: []}
        for r in rows:
            if sorts.setdefault(r.task, r.has_class) != r.has_class:
                raise BadFile(f"{r.where}: task {r.task!r} has images with captions and images with classes")
            photos[r.has_class].append((r.task, r.split, Photo(existing(root, r.image, r.where), r.captions)))
        return sorted([*gathered(root, photos[False]), *classified(root, str(path), photos[True])], key=_by_name)


def _by_name(task: Task) -> str:
    return task.name
