"""Values derived from file contents, stored in the user cache as long as the files do not change.

A file counts as unchanged if its path, device, inode, size and timestamps are the same, because hashing a gigabyte of
weights takes longer than generating an adapter. ctime is controlled by the operating system, so resetting mtime is
detected. Files changed within the last seconds are not trusted, because they may change again within the same tick of
the clock.
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
"""Nanoseconds after the last change of a file before its timestamps are trusted."""


def remembered(what: str, paths: Sequence[Path], compute: Callable[[], str]) -> str:
    """Return `compute()`, or its cached result for the same files.

    what: identifies the value and everything it depends on besides the files. Raises BadFile for a file that cannot be
    read. Nothing is cached if the cache is not writable.
    """
    place, stamps = _place(what, paths), [stamp(path) for path in paths]
    found = _recall(place, stamps)
    if found is not None:
        return found
    value = compute()
    _remember(place, paths, stamps, value)
    return value


class FrozenFile:
    """A weight file whose hash is part of a fingerprint. The loaded bytes are guaranteed to be the hashed ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: Sequence[int] = ()
        """The file's stamp when it was hashed."""

    @cached_property
    def sha256(self) -> str:
        """The hash in hexadecimal. Raises BadFile if the file cannot be read."""
        self._stamp = stamp(self.path)
        return remembered("sha256", [self.path], lambda: file_hash(self.path))

    def mapped(self) -> dict[str, Tensor]:
        """Return its tensors, memory-mapped. Only use it for files of packages, which are not changed in place.

        Raises BadFile if it is not a safetensors file or has changed since it was hashed.
        """
        _ = self.sha256
        tensors, _ = load_tensors(self.path)
        if stamp(self.path) != self._stamp:
            raise self._changed()
        return tensors

    def read(self) -> bytes:
        """Read the complete file. Raises BadFile if it cannot be read or has changed since it was hashed."""
        place, stamps = _place("sha256", [self.path]), [stamp(self.path)]
        data = read_bytes(self.path, _LIMIT)
        found = _recall(place, stamps) if stamp(self.path) == stamps[0] else None
        if found is None:
            found = data_hash(data)
            _remember(place, [self.path], stamps, found)
        if vars(self).setdefault("sha256", found) != found:  # where cached_property stores it
            raise self._changed()
        return data

    def _changed(self) -> BadFile:
        return BadFile(f"{self.path} changed after its fingerprint was taken", "run the command again")


def _place(what: str, paths: Sequence[Path]) -> Path:
    name = data_hash("\0".join([what, *(str(path.absolute()) for path in paths)]).encode(errors="surrogateescape"))
    return cache_folder() / "fingerprints" / f"{name[:32]}.json"


def stamp(path: Path) -> list[int]:
    """Return device, inode, size and timestamps, which change with a file's content. Raises BadFile."""
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
    """Return whether the last change was long enough ago that a new change would give another stamp."""
    return time.time_ns() - stamp[3] > _SETTLED


def _remember(place: Path, paths: Sequence[Path], stamps: Sequence[Sequence[int]], value: str) -> None:
    if all(map(is_settled, stamps)) and [stamp(path) for path in paths] == stamps:
        with suppress(Unavailable):
            write_sealed(place, {"files": stamps, "value": value})
