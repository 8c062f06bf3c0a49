"""Copy photos into a new folder, which is created atomically. No torch at import time."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from sglora_cli.errors import BadFile, UsageError, unwritable
from sglora_cli.files.atomic import put_folder, scratch_folder


def check_new(folder: Path, photos: Path | None = None) -> None:
    """Raise UsageError if the folder cannot be created, because copies never replace existing files.

    photos: the folder of the originals. The next search would find copies inside it.
    """
    if photos is not None and photos.is_dir() and folder.resolve().is_relative_to(photos.resolve()):
        raise UsageError(f"{folder} is inside {photos}, where searches would find the copies", "choose another folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"folder {folder} is not empty", "choose a new folder; existing files are never replaced")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", "choose a new folder")


def copy_photos(folder: Path, named: Iterable[tuple[str, Path]]) -> int:
    """Copy photos into a new folder and return their number.

    named: the path of each copy, relative to the folder, and its photo. Duplicate names get a number. Raises BadFile
    for a photo that cannot be read, Unavailable for a folder that cannot be written.
    """
    check_new(folder)
    taken: set[str] = set()
    with scratch_folder(folder) as draft:
        for name, photo in named:
            target = draft / _free(name, taken)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(photo, target)
            except OSError as error:
                if not photo.exists():
                    raise BadFile.missing(photo, "photo ") from None
                raise unwritable(f"cannot copy {photo} into {folder}", error) from error
        put_folder(draft, folder)
    return len(taken)


def _free(name: str, taken: set[str]) -> str:
    """Return the name, with the first free number if it is taken. Names that differ only in case count as equal."""
    path, number = Path(name), 1
    free = name
    while free.casefold() in taken:
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}").as_posix()
    taken.add(free.casefold())
    return free
