"""A folder with images and a captions.jsonl or captions.csv (see captions.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.api import Photo, Task, Unavailable

from .captions import JSONL, find_captions, read_captions
from .gathering import existing, gathered


@dataclass(frozen=True)
class Folder:
    name: str = "folder"
    summary: str = "a folder with images and captions.jsonl or captions.csv"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Every task named in the file, sorted; its description is still the plain name.

        Raises Unavailable without a captions file, BadFile with path and line for anything wrong
        in it. Images are not opened here, but each must exist.
        """
        path = find_captions(root)
        if path is None:
            raise Unavailable(
                f"{root / JSONL} does not exist", "name a folder that holds captions.jsonl (or .csv) and its images"
            )
        rows = read_captions(path)
        return gathered(root, ((r.task, r.split, Photo(existing(root, r.image, r.where), r.captions)) for r in rows))
