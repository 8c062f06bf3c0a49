"""The photos that a user names: all in a folder, one photo, or those of a list. No torch at import time."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.errors import BadFile, UsageError
from sglora_cli.files.images import image_endings, image_files, printable_name
from sglora_cli.files.passed_over import PassedOver
from sglora_cli.files.untrusted import read_bytes

STANDARD_INPUT = Path("-")
_LIST_LIMIT = 1 << 28
_PLACES = "name a folder of photos, one photo, or a text file with the path of a photo in each line"


@dataclass(frozen=True)
class PhotoList:
    """Photos to look at."""

    place: Path
    """What the user named."""
    paths: Mapping[str, Path]
    """By name: below the folder, or as the list has it."""
    passed_over: Sequence[PassedOver] = ()
    """What else lies in the folder."""


def photo_list(place: Path) -> PhotoList:
    """The photos of a folder, of a list (a text file, or `-` for standard input), or the one photo.

    Raises BadFile if there is none, or if a listed photo does not exist.
    """
    if place == STANDARD_INPUT:
        return PhotoList(place, _listed(sys.stdin.buffer.read(_LIST_LIMIT), "standard input", [Path()]))
    if place.is_dir():
        paths, passed_over = image_files(place)
        return PhotoList(place, paths, passed_over)
    if not place.exists():
        missing = BadFile.missing(place)
        raise BadFile(missing.message, missing.hint if missing.hint.startswith("did you mean") else _PLACES)
    if place.suffix.lower() in image_endings():
        return PhotoList(place, {printable_name(place): place})
    return PhotoList(place, _listed(read_bytes(place, _LIST_LIMIT), str(place), [place.parent, Path()]))


def _listed(data: bytes, where: str, folders: Sequence[Path]) -> dict[str, Path]:
    """The photos of a list. A relative path is looked for in each of the folders."""
    try:
        lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise BadFile(f"{where} is neither a photo nor a list of photos in UTF-8", _PLACES) from None
    paths, missing = {}, []
    seen = set()  # one photo may be named in several ways
    for line in lines:
        path = next(filter(os.path.isfile, (os.path.join(folder, line) for folder in folders)), None)
        if path is None:
            missing.append(line)
        elif (whole := os.path.abspath(path)) not in seen:
            seen.add(whole)
            paths[line if line.isprintable() else printable_name(Path(line))] = Path(path)
    if missing:
        message = f"{len(missing)} of the {len(lines)} photos that {where} lists do not exist, {missing[0]!r} first"
        raise BadFile(message, "paths are relative to the list's folder, or to the working folder")
    if not paths:
        raise BadFile(f"{where} lists no photo", "write the path of a photo in each line")
    return paths


def check_few(photos: PhotoList) -> None:
    """Raises UsageError for a single photo, which cannot be ranked."""
    if len(photos.paths) == 1:
        hint = "name a folder of photos, or a text file with the path of a photo in each line"
        raise UsageError(f"{photos.place} is one photo, and there is nothing to rank", hint)
