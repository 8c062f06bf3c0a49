"""What follows from the content of files alone, remembered in the user cache while the files are the same.

A file is the same if its path, device, inode, size and times of change are: hashing a gigabyte of weights takes longer
than making an adapter. The second time (ctime) is the system's own, so that who sets the first one back is found out. A
file that changed within the last seconds is not relied on, as it might change again within the same tick of the clock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.errors import BadFile, Unavailable
from sglora_cli.files.hashes import data_hash, file_hash
from sglora_cli.files.tensors import load_tensors
from sglora_cli.files.text import read_sealed, write_sealed
from sglora_cli.files.untrusted import read_bytes
from sglora_cli.system.paths import cache_folder

if TYPE_CHECKING:
    from torch import Tensor

_LIMIT = 1 << 30
_SETTLED = 2e9
"""Nanoseconds since the last change of a file, after which its time of change can be relied on."""


def remembered(what: str, paths: Sequence[Path], compute: Callable[[], str]) -> str:
    """`compute()`, or what it gave for the same files before.

    what: names the text, and everything besides the files that it follows from. Raises BadFile for a file that cannot
    be read. In a cache that cannot be written, nothing is remembered.
    """
    place, stamps = _place(what, paths), [stamp(path) for path in paths]
    found = _recall(place, stamps)
    if found is not None:
        return found
    value = compute()
    _remember(place, paths, stamps, value)
    return value


class FrozenFile:
    """A file of weights whose hash is part of a fingerprint: what is loaded are the bytes that were hashed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: Sequence[int] = ()
        """The file's, when it was hashed."""

    @cached_property
    def sha256(self) -> str:
        """In hexadecimal. Raises BadFile if the file cannot be read."""
        self._stamp = stamp(self.path)
        return remembered("sha256", [self.path], lambda: file_hash(self.path))

    def mapped(self) -> dict[str, Tensor]:
        """Its tensors, of which the disk gives only what is used: for a package's file, which nobody changes in place.

        Raises BadFile if it is no safetensors file, or has changed since it was hashed.
        """
        _ = self.sha256
        tensors, _ = load_tensors(self.path)
        if stamp(self.path) != self._stamp:
            raise self._changed()
        return tensors

    def read(self) -> bytes:
        """All of it. Raises BadFile if it cannot be read, or has changed since it was hashed."""
        place, stamps = _place("sha256", [self.path]), [stamp(self.path)]
        data = read_bytes(self.path, _LIMIT)
        found = _recall(place, stamps) if stamp(self.path) == stamps[0] else None
        if found is None:
            found = data_hash(data)
            _remember(place, [self.path], stamps, found)
        if vars(self).setdefault("sha256", found) != found:  # where cached_property keeps it
            raise self._changed()
        return data

    def _changed(self) -> BadFile:
        return BadFile(f"{self.path} changed after its fingerprint was taken", "run it again")


def _place(what: str, paths: Sequence[Path]) -> Path:
    name = data_hash("\0".join([what, *(str(path.absolute()) for path in paths)]).encode(errors="surrogateescape"))
    return cache_folder() / "fingerprints" / f"{name[:32]}.json"


def stamp(path: Path) -> list[int]:
    """What another content of a file does not have: device, inode, size and both times of change. Raises BadFile."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _recall(place: Path, stamps: Sequence[Sequence[int]]) -> str | None:
    with suppress(BadFile):
        match read_sealed(place):
            case {"files": files, "value": str(value)} if files == stamps:
                return value
    return None


def is_settled(stamp: Sequence[int]) -> bool:
    """Whether a file with this stamp changed so long ago that another content would have another stamp."""
    return time.time_ns() - stamp[3] > _SETTLED


def _remember(place: Path, paths: Sequence[Path], stamps: Sequence[Sequence[int]], value: str) -> None:
    if all(map(is_settled, stamps)) and [stamp(path) for path in paths] == stamps:
        with suppress(Unavailable):
            write_sealed(place, {"files": stamps, "value": value})
