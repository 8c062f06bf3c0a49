"""The data set `example`: one folder per task, with images and a text file of captions beside each.

    pug/1.jpg  pug/1.txt  pug/2.jpg  pug/2.txt  cat/1.jpg ...

Text files have one caption per line. Every fifth image of a task, sorted by name, is for testing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sglora_cli.api import (
    BadFile,
    Photo,
    Task,
    Unavailable,
    hookimpl,
    image_endings,
    other_images,
    text_lines,
)

SGLORA_API = "1.0"
"""Version of the plugin API this is written for. sglora reports an incompatible version."""


class Example:
    """The data set that `sglora plugins list` shows."""

    name = "example"
    summary = "one folder per task, with captions in text files"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Return all tasks, sorted by name. Raises Unavailable if there are none, BadFile for missing captions."""
        tasks = [self._task(folder) for folder in _folders(root) if _images(folder)]
        if not tasks:
            raise Unavailable(f"{root} has no folder with images", "put TASK/1.jpg and TASK/1.txt there")
        return tasks

    def passed_over(self, root: Path) -> Iterable[tuple[str, str]]:
        """Yield (name, reason) of images in no task, for `sglora data check`. This method is optional."""
        known = {path.relative_to(root).as_posix() for folder in _folders(root) for path in _images(folder)}
        return other_images(root, known, "images outside task folders")

    def _task(self, folder: Path) -> Task:
        photos = [Photo(path, _captions(path.with_suffix(".txt"))) for path in _images(folder)]
        train = [photo for n, photo in enumerate(photos) if n % 5 != 4]
        return Task(self.name, folder.name, f"a photo of a {folder.name}", {"train": train, "test": photos[4::5]})


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in image_endings())


def _captions(path: Path) -> tuple[str, ...]:
    captions = tuple(line.strip() for _, line in text_lines(path))
    if not captions:
        raise BadFile(f"{path} has no caption", "write one caption per line")
    return captions


@hookimpl
def sglora_datasets() -> list[Example]:
    return [Example()]
