"""The data set `example`: a folder a task, with images and a text file of captions beside each.

    pug/1.jpg  pug/1.txt  pug/2.jpg  pug/2.txt  cat/1.jpg ...

A text file has a caption a line. Every fifth image of a task, by name, is for testing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sglora_cli.api import BadFile, Photo, Task, Unavailable, hookimpl, text_lines

SGLORA_API = "1.0"
"""The plugin API this is written for; sglora says so where it does not fit."""
ENDINGS = (".jpg", ".jpeg", ".png")


class Example:
    """What sglora lists."""

    name = "example"
    summary = "a folder a task, with captions in text files"

    def tasks(self, root: Path) -> Sequence[Task]:
        """All tasks, sorted by name. Raises Unavailable if there is none, BadFile for an image without captions."""
        folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        tasks = [self._task(folder) for folder in folders if _images(folder)]
        if not tasks:
            raise Unavailable(f"{root} has no folder with images", "put TASK/1.jpg and TASK/1.txt there")
        return tasks

    def _task(self, folder: Path) -> Task:
        photos = [Photo(path, _captions(path.with_suffix(".txt"))) for path in _images(folder)]
        train = [photo for n, photo in enumerate(photos) if n % 5 != 4]
        return Task(self.name, folder.name, f"a photo of a {folder.name}", {"train": train, "test": photos[4::5]})


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)


def _captions(path: Path) -> tuple[str, ...]:
    captions = tuple(line.strip() for _, line in text_lines(path))
    if not captions:
        raise BadFile(f"{path} has no caption", "write one a line")
    return captions


@hookimpl
def sglora_datasets() -> list[Example]:
    return [Example()]
