"""The photos that a user names: those in a folder, a single photo, or those in a list. Does not import torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.errors import BadFile, UsageError
from sglora_cli.files.images import image_endings, image_files, printable_name
from sglora_cli.files.passed_over import PassedOver
from sglora_cli.files.text import UTF_16, decoded
from sglora_cli.files.untrusted import read_bytes
from sglora_cli.system.display import counted

STANDARD_INPUT = Path("-")
_LIST_LIMIT = 1 << 28
_PLACES = "pass a folder of photos, a photo, or a text file with one path per line"


@dataclass(frozen=True)
class PhotoList:
    """Photos to search or sort."""

    place: Path
    """The path that the user named."""
    paths: Mapping[str, Path]
    """Name to path. A name is relative to the folder, or as it stands in the list."""
    passed_over: Sequence[PassedOver] = ()
    """Other files in the folder."""


def photo_list(place: Path) -> PhotoList:
    """Find the photos of a folder, of a list (a text file, or `-` for standard input), or a single photo.

    Raises BadFile if there are no photos, or if a listed photo does not exist.
    """
    if place == STANDARD_INPUT:
        return PhotoList(place, _listed(sys.stdin.buffer.read(_LIST_LIMIT), "standard input", [""]))
    if place.is_dir():
        paths, passed_over = image_files(place)
        return PhotoList(place, paths, passed_over)
    if not place.exists():
        missing = BadFile.missing(place)
        raise BadFile(missing.message, missing.hint if missing.hint.startswith("did you mean") else _PLACES)
    if place.suffix.lower() in image_endings():
        return PhotoList(place, {printable_name(place): place})
    return PhotoList(place, _listed(read_bytes(place, _LIST_LIMIT), str(place), [str(place.parent), ""]))


def _listed(data: bytes, where: str, folders: Sequence[str]) -> dict[str, Path]:
    """Parse a list of photos. Relative paths are resolved against each folder in turn."""
    if b"\0" in data and not data.startswith(UTF_16):
        raise BadFile(f"{where} is neither a photo nor a list of photos", _PLACES)
    lines = [line for line in decoded(data, where).splitlines() if line.strip()]
    paths: dict[str, Path] = {}
    missing = []
    seen = set()  # the same photo may be listed under several paths
    for line in lines:
        path = _first_file(folders, line)
        if path is None:
            missing.append(line)
        elif (absolute := os.path.abspath(path)) not in seen:
            seen.add(absolute)
            paths[line if line.isprintable() else printable_name(Path(line))] = Path(path)
    if missing:
        total = counted(len(lines), "photo")
        message = f"{len(missing)} of {total} listed in {where} cannot be found, the first is {missing[0]!r}"
        raise BadFile(message, "write paths relative to the folder of the list, or to the working directory")
    if not paths:
        raise BadFile(f"{where} lists no photo", "write one path per line")
    return paths


def _first_file(folders: Sequence[str], line: str) -> str | None:
    for folder in folders:
        path = os.path.join(folder, line)
        if os.path.isfile(path):
            return path
    return None


def check_few(photos: PhotoList) -> None:
    """Raise UsageError for a single photo, because it cannot be ranked."""
    if len(photos.paths) == 1:
        hint = "pass a folder of photos, or a text file with one path per line"
        raise UsageError(f"{photos.place} is a single photo, so there is nothing to rank", hint)
