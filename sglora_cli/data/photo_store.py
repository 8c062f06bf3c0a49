"""Embeddings and other rows of numbers per photo, cached by the content of the photo.

The cache is one SQLite file with three tables. `photo` maps the path and stamp of a file (system/fingerprints.py) to
the hash of its content, so that an unchanged photo is not read again. `vector` maps a space and the hash of a photo to
a row of numbers. The caller names the space. Its name must depend on everything that determines the numbers, apart
from the photo itself. `collection` holds the rows of many photos in one value, because reading one value is faster.

All contents can be recomputed. A damaged file is therefore deleted and recreated. If the cache cannot be written,
results are held in memory for the current run.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.data.ahead import ahead
from sglora_cli.errors import BadFile, SgloraWarning
from sglora_cli.files.hashes import data_hash, file_hash
from sglora_cli.system.fingerprints import is_settled, stamp
from sglora_cli.system.paths import cache_folder

VERSION = 2
"""Version of the file. Files of other versions are deleted."""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS photo (path BLOB PRIMARY KEY, stamp TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS vector
    (space TEXT NOT NULL, sha256 TEXT NOT NULL, numbers BLOB NOT NULL, PRIMARY KEY (space, sha256));
CREATE TABLE IF NOT EXISTS collection (key TEXT PRIMARY KEY, data BLOB NOT NULL);
PRAGMA user_version = {VERSION};
"""
_PHOTOS = "SELECT path, stamp, sha256 FROM photo WHERE path IN ({})"
_COUNT = "SELECT count(*) FROM vector WHERE space IN ({})"
_ALL = "SELECT sha256, numbers FROM vector WHERE space IN ({})"
_VECTORS = "SELECT sha256, numbers FROM vector WHERE space = ? AND sha256 IN ({})"
_COLLECTION = "SELECT data FROM collection WHERE key IN ({})"
_OLD_COLLECTIONS = "DELETE FROM collection WHERE rowid <= (SELECT max(rowid) FROM collection) - ?"
_COLLECTIONS = 16
"""How many of them are cached. The oldest are deleted."""
_COLLECTION_LIMIT = 1 << 26
"""Largest size of one, in bytes."""
_WAIT_SECONDS = 10.0
"""How long to wait for another process that writes."""
_WHOLE = 4
"""Read all rows of a space that has at most this many times the requested number of rows."""
_ASKED_AT_ONCE = 500
"""Parameters per query. Old versions of SQLite allow 999."""


def store_file() -> Path:
    return cache_folder() / "embeddings" / "photos.sqlite"


@contextmanager
def photo_store() -> Iterator[PhotoStore]:
    """Open the current user's store for a `with` block."""
    store = PhotoStore(store_file())
    try:
        yield store
    finally:
        store.close()


@dataclass(frozen=True)
class PhotoFiles:
    """Files of photos and their state."""

    paths: Sequence[Path]
    places: Sequence[bytes]
    """Absolute paths."""
    stamps: Sequence[list[int] | BadFile]
    """See system/fingerprints.py; the error of a file that has none."""

    @classmethod
    def of(cls, paths: Sequence[Path]) -> PhotoFiles:
        """Take the state of files now."""
        return cls(paths, [os.fsencode(os.path.abspath(path)) for path in paths], [_stamp_of(path) for path in paths])

    @property
    def key(self) -> str:
        """Identifies the paths and their state. Equal keys mean equal contents if `can_be_cached` was true before."""
        return data_hash(b"\0".join(self.places) + b"\0\0" + str(self.stamps).encode())

    @property
    def can_be_cached(self) -> bool:
        """Whether all files could be read, did not change shortly before their state was taken, nor since then."""
        return all(_is_reliable(before, path) for before, path in zip(self.stamps, self.paths, strict=True))


class PhotoStore:
    """Cached rows of numbers (see the module). Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = self._opened()

    def close(self) -> None:
        self._database.close()

    def hashes(self, files: PhotoFiles) -> list[str | BadFile]:
        """Return the SHA-256 of each photo's bytes in hexadecimal, or the error for a photo that cannot be read."""
        photos, places, stamps = files.paths, files.places, files.stamps
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
        """Cache the hashes of files that changed neither during reading nor shortly before it."""
        rows = [
            (place, str(before), sha256)
            for place, before, sha256, photo in hashed
            if isinstance(sha256, str) and _is_reliable(before, photo)
        ]
        self._write("INSERT OR REPLACE INTO photo VALUES (?, ?, ?)", rows)

    def vectors(self, space: str, sha256s: Iterable[str]) -> dict[str, bytes]:
        """Return the cached rows of these photos in a space, as float32 bytes. `matrix` stacks them."""
        wanted = dict.fromkeys(sha256s)
        if not wanted:
            return {}
        count = self._rows(_COUNT, [space])
        if count and count[0][0] <= _WHOLE * len(wanted):  # one scan is faster than many queries
            rows = [row for row in self._rows(_ALL, [space]) if row[0] in wanted]
        else:
            rows = self._rows(_VECTORS, list(wanted), space)
        return _intact(rows)

    def put(self, space: str, vectors: Mapping[str, bytes]) -> None:
        """Cache rows of numbers, as returned by `rows_of`."""
        rows = [(space, sha256, numbers + _checksum(sha256, numbers)) for sha256, numbers in vectors.items()]
        self._write("INSERT OR REPLACE INTO vector VALUES (?, ?, ?)", rows)

    def collection(self, key: str) -> memoryview | None:
        """Return the data of a collection, or None if it is not cached."""
        for (stored,) in self._rows(_COLLECTION, [key]):
            data = memoryview(stored)  # slices of bytes would be copies
            if _checksum(key, data[:-4]) == data[-4:]:
                return data[:-4]
        return None

    def put_collection(self, key: str, data: bytes) -> None:
        """Cache the data of a collection, unless it is too large."""
        if len(data) <= _COLLECTION_LIMIT:
            self._write("INSERT OR REPLACE INTO collection VALUES (?, ?)", [(key, data + _checksum(key, data))])
            self._write(_OLD_COLLECTIONS, [(_COLLECTIONS,)])

    def _rows(self, query: str, values: Sequence[object], *first: object) -> list[Any]:
        """Return the rows of a query for many values. If the file is damaged, recreate it and return no rows."""
        rows = []
        try:
            for start in range(0, len(values), _ASKED_AT_ONCE):
                some = values[start : start + _ASKED_AT_ONCE]
                rows += self._database.execute(query.format(", ".join("?" * len(some))), (*first, *some)).fetchall()
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
        except sqlite3.DatabaseError:  # damaged, or written by another version
            return self._made_anew()

    def _made_anew(self) -> sqlite3.Connection:
        try:
            self._path.unlink(missing_ok=True)
            return _connected(self._path)
        except (sqlite3.Error, OSError) as error:
            return self._in_memory(error)

    def _in_memory(self, error: Exception) -> sqlite3.Connection:
        warnings.warn(f"embeddings of photos are not cached: {self._path}: {error}", SgloraWarning, stacklevel=2)
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
        """Replace a database that failed: by a new file if it is damaged, otherwise by one in memory."""
        with suppress(sqlite3.Error):
            self._database.close()
        failing = isinstance(error, sqlite3.OperationalError)  # a full disk, a lock, no permission
        self._database = self._in_memory(error) if failing else self._made_anew()


def _connected(path: Path | None) -> sqlite3.Connection:
    """Open the database. Raises sqlite3.DatabaseError for a damaged file or another version."""
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


def _is_reliable(before: object, photo: Path) -> bool:
    """Return whether a file changed neither since its stamp was taken nor shortly before."""
    return isinstance(before, list) and is_settled(before) and _stamp_of(photo) == before


def _hash_of(photo: Path) -> str | BadFile:
    try:
        return file_hash(photo)
    except BadFile as error:
        return error


def rows_of(numbers_ND: Tensor) -> list[bytes]:
    """Split a matrix (N, D) into its rows, as float32 bytes."""
    data, width = numbers_ND.detach().float().contiguous().numpy().tobytes(), 4 * numbers_ND.shape[1]
    return [data[start : start + width] for start in range(0, len(data), width)]


def matrix(rows: Sequence[bytes]) -> Tensor:
    """Stack rows of float32 bytes into a matrix (N, D). Inverse of `rows_of`."""
    return torch.frombuffer(bytearray().join(rows), dtype=torch.float32).view(len(rows), -1)


def _checksum(key: str, data: bytes | memoryview) -> bytes:
    """Checksum over data and the key that it is stored under."""
    return zlib.crc32(data, zlib.crc32(key.encode())).to_bytes(4, "little")


def _intact(rows: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """Map the hash of a photo to its numbers. Rows with a wrong checksum are left out."""
    split = ((sha256, packed[:-4], packed[-4:]) for sha256, packed in rows)
    return {sha256: numbers for sha256, numbers, checksum in split if _checksum(sha256, numbers) == checksum}
