"""Numbers that models give for photos, kept in the user cache by the content of the photos.

One SQLite file has two tables. `photo` knows the content of files by their path and stamp (system/fingerprints.py), so
that a photo that did not change is not read again. `vector` has rows of numbers by their space and the photo's content.
Whoever computes them names the space: it must follow from everything that the numbers follow from besides the photo.

Everything here can be computed again. So a file that is damaged is made anew, and where the cache cannot be written,
what is computed is kept in memory for the run alone.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.data.ahead import ahead
from sglora_cli.errors import BadFile, SgloraWarning
from sglora_cli.files.hashes import file_hash
from sglora_cli.system.fingerprints import is_settled, stamp
from sglora_cli.system.paths import cache_folder

VERSION = 1
"""Of the file: what another version wrote is dropped."""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS photo (path BLOB PRIMARY KEY, stamp TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS vector
    (space TEXT NOT NULL, sha256 TEXT NOT NULL, numbers BLOB NOT NULL, PRIMARY KEY (space, sha256));
PRAGMA user_version = {VERSION};
"""
_PHOTOS = "SELECT path, stamp, sha256 FROM photo WHERE path IN ({})"
_COUNT = "SELECT count(*) FROM vector WHERE space IN ({})"
_ALL = "SELECT sha256, numbers FROM vector WHERE space IN ({})"
_VECTORS = "SELECT sha256, numbers FROM vector WHERE space = ? AND sha256 IN ({})"
_WAIT_SECONDS = 10.0
"""For another process that is writing."""
_WHOLE = 4
"""A space with so many times the photos that are asked for, or fewer, is read whole."""
_ASKED_AT_ONCE = 500
"""Values in one question; old SQLites take 999."""


def store_file() -> Path:
    return cache_folder() / "embeddings" / "photos.sqlite"


@contextmanager
def photo_store() -> Iterator[PhotoStore]:
    """The store of this user, open in the block."""
    store = PhotoStore(store_file())
    try:
        yield store
    finally:
        store.close()


class PhotoStore:
    """See above. One thread uses it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = self._opened()

    def close(self) -> None:
        self._database.close()

    def hashes(self, photos: Sequence[Path]) -> list[str | BadFile]:
        """SHA-256 of each photo's bytes, in hexadecimal, or why it cannot be read."""
        places = [os.fsencode(os.path.abspath(photo)) for photo in photos]
        stamps = [_stamp_of(photo) for photo in photos]
        known = {place: (before, sha256) for place, before, sha256 in self._rows(_PHOTOS, places)}
        found: list[str | BadFile] = []
        for place, now in zip(places, stamps, strict=True):
            before, sha256 = known.get(place, ("", ""))
            found.append(now if isinstance(now, BadFile) else sha256 if before == str(now) else "")
        unknown = [n for n, one in enumerate(found) if one == ""]
        for n, read in zip(unknown, ahead(_hash_of, [photos[n] for n in unknown]), strict=True):
            found[n] = read
        self._remember((places[n], stamps[n], found[n], photos[n]) for n in unknown)
        return found

    def _remember(self, hashed: Iterable[tuple[bytes, object, str | BadFile, Path]]) -> None:
        """Keep the hashes of files that did not change while they were read, and not just before."""
        rows = [
            (place, str(before), sha256)
            for place, before, sha256, photo in hashed
            if isinstance(sha256, str)
            and isinstance(before, list)
            and is_settled(before)
            and _stamp_of(photo) == before
        ]
        self._write("INSERT OR REPLACE INTO photo VALUES (?, ?, ?)", rows)

    def vectors(self, space: str, sha256s: Iterable[str]) -> dict[str, Tensor]:
        """Rows of numbers, float32, of the photos with these hashes that are known in the space."""
        wanted = dict.fromkeys(sha256s)
        count = self._rows(_COUNT, [space])
        if count and count[0][0] <= _WHOLE * len(wanted):  # one pass over the space is quicker than many questions
            rows = [row for row in self._rows(_ALL, [space]) if row[0] in wanted]
        else:
            rows = self._rows(_VECTORS, list(wanted), space)
        return _unpacked(rows)

    def put(self, space: str, vectors: Mapping[str, Tensor]) -> None:
        """Keep rows of numbers."""
        rows = [(space, sha256, _packed(numbers, sha256)) for sha256, numbers in vectors.items()]
        self._write("INSERT OR REPLACE INTO vector VALUES (?, ?, ?)", rows)

    def _rows(self, question: str, values: Sequence[object], *first: object) -> list[Any]:
        """The answers for many values. A file that turns out to be damaged is made anew, and nothing is found in it."""
        rows = []
        try:
            for start in range(0, len(values), _ASKED_AT_ONCE):
                some = values[start : start + _ASKED_AT_ONCE]
                rows += self._database.execute(question.format(", ".join("?" * len(some))), (*first, *some)).fetchall()
        except sqlite3.DatabaseError as error:
            self._replace(error)
            return []
        return rows

    def _opened(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return _connected(self._path)
        except (sqlite3.OperationalError, OSError) as error:
            return self._in_memory(error)
        except sqlite3.DatabaseError:  # damaged, or of another version
            return self._made_anew()

    def _made_anew(self) -> sqlite3.Connection:
        try:
            self._path.unlink(missing_ok=True)
            return _connected(self._path)
        except (sqlite3.Error, OSError) as error:
            return self._in_memory(error)

    def _in_memory(self, error: Exception) -> sqlite3.Connection:
        warnings.warn(f"what is computed of photos is not kept: {self._path}: {error}", SgloraWarning, stacklevel=2)
        return _connected(None)

    def _write(self, command: str, rows: Sequence[tuple[object, ...]]) -> None:
        if not rows:
            return
        for _ in range(2):
            try:
                with self._database:  # one transaction
                    self._database.executemany(command, rows)
            except sqlite3.DatabaseError as error:
                self._replace(error)
            else:
                return

    def _replace(self, error: sqlite3.DatabaseError) -> None:
        """Another database in place of one that failed: a new file where it is damaged, else memory."""
        with suppress(sqlite3.Error):
            self._database.close()
        failing = isinstance(error, sqlite3.OperationalError)  # a full disk, a lock, no permission
        self._database = self._in_memory(error) if failing else self._made_anew()


def _connected(path: Path | None) -> sqlite3.Connection:
    """Raises sqlite3.DatabaseError for a file that is none of this version's."""
    database = sqlite3.connect(path or ":memory:", timeout=_WAIT_SECONDS)
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"version {version}")
        if version == 0:
            database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database


def _stamp_of(photo: Path) -> list[int] | BadFile:
    try:
        return stamp(photo)
    except BadFile as error:
        return error if os.path.lexists(photo) else BadFile.missing(photo, "image ")


def _hash_of(photo: Path) -> str | BadFile:
    try:
        return file_hash(photo)
    except BadFile as error:
        return error


def _packed(numbers: Tensor, sha256: str) -> bytes:
    """Its bytes, and a checksum of them and of what they belong to."""
    data = numbers.detach().float().contiguous().numpy().tobytes()
    return data + zlib.crc32(data, zlib.crc32(sha256.encode())).to_bytes(4, "little")


def _unpacked(rows: Sequence[tuple[str, bytes]]) -> dict[str, Tensor]:
    """The numbers of rows by their hashes, without those that are not what was written."""
    by_length: dict[int, list[tuple[str, bytes]]] = {}
    for sha256, packed in rows:
        data = packed[:-4]
        whole = data and len(data) % 4 == 0
        if whole and zlib.crc32(data, zlib.crc32(sha256.encode())).to_bytes(4, "little") == packed[-4:]:
            by_length.setdefault(len(data), []).append((sha256, data))
    found: dict[str, Tensor] = {}
    for same in by_length.values():
        numbers = torch.frombuffer(bytearray(b"".join(data for _, data in same)), dtype=torch.float32)
        found |= zip([sha256 for sha256, _ in same], numbers.view(len(same), -1).unbind(), strict=True)
    return found
