"""Tensors too large for memory, in safetensors files of the cache that are read and written row by row.

A row is everything at one index of a tensor's first axis. Each tensor X has a tensor X.sums, (R,) int64, with a CRC-32
of every row, seeded with the name of the file, the tensor and the row number. It is verified whenever a row is read, to
detect flipped bytes, misplaced rows and misplaced files. Shapes: R rows.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sglora_cli.errors import BadFile, Unavailable, unwritable
from sglora_cli.files.atomic import put_file
from sglora_cli.files.attempts import own_path
from sglora_cli.files.plain_rows import DTYPES, bytes_of, tensor_place
from sglora_cli.files.tensors import KEY, packed_metadata, safetensors_header

_NAMES = {torch.int64: "I64", **{dtype: name for name, dtype in DTYPES.items()}}
_SUMS = ".sums"
_CHUNK = 16 << 20

_AGAIN = "run the command again to recreate it"
_REMEDY = "free some space, or move the cache with SGLORA_HOME; completed work is kept"

Shapes = Mapping[str, tuple[torch.dtype, Sequence[int]]]

_checked: dict[tuple[Path, str], tuple[int, int, int]] = {}
"""The files and tensors that this process has verified -> the state of the file at that time."""


class TensorRows:
    """One tensor (R, ...) of a file of TensorDraft. Rows are read on demand and not cached.

    >>> rows[[3, 3, 0]].shape                                       # doctest: +SKIP
    torch.Size([3, 49, 192])
    """

    def __init__(self, path: Path, name: str, owner: str = "") -> None:
        """Raises BadFile unless the file is complete and has this floating-point tensor with its checksums.

        owner: the stem of the file's final name, if it still has a temporary one.
        """
        header = safetensors_header(path)
        self.path, self.name = path, name
        self.shape, self.dtype, self._start = tensor_place(path, header, name, DTYPES)
        self._bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._salt = _salt(owner or path.stem, name)
        shape, _, start = tensor_place(path, header, name + _SUMS, {"I64": torch.int64})
        if shape != self.shape[:1]:
            raise BadFile(f"{path}: tensor {name!r} has {self.shape[0]} rows, but checksums of shape {list(shape)}")
        self._sums = array("q")
        with path.open("rb") as file:
            file.seek(start)
            self._sums.frombytes(file.read(8 * shape[0]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | Sequence[int]) -> Tensor:
        """Read one row as (...), or a list of rows as (R, ...). Raises BadFile if a checksum does not match."""
        if isinstance(rows, int):
            return self[[rows]][0]
        tensor = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        into = bytes_of(tensor)
        try:
            with self.path.open("rb", buffering=0) as file:
                for n, row in enumerate(rows):
                    row = range(len(self))[
                        row
                    ]  # like lists: -1 is the last row, and indices past the end raise IndexError
                    self._read(file, row, into[n * self._bytes : (n + 1) * self._bytes])
        except OSError as error:
            raise BadFile(f"cannot read {self.path}: {error.strerror}") from None
        return tensor

    def _read(self, file: BinaryIO, first: int, into: memoryview) -> None:
        """Read rows `first`, `first + 1`, ... and verify them. Raises BadFile."""
        file.seek(self._start + first * self._bytes)
        if file.readinto(into) != len(into):  # type: ignore[attr-defined]
            raise BadFile(f"{self.path} ends in the middle of a row", _AGAIN)
        for n in range(len(into) // self._bytes if self._bytes else 0):
            if _sum(self._salt, first + n, into[n * self._bytes : (n + 1) * self._bytes]) != self._sums[first + n]:
                raise BadFile(f"{self.path}: row {first + n} of {self.name!r} is damaged", _AGAIN)

    def check(self) -> None:
        """Verify the checksums of all rows, unless this was done since the file last changed. Raises BadFile."""
        state = self.path.stat()
        version = state.st_ino, state.st_size, state.st_mtime_ns
        if _checked.get((self.path, self.name)) == version:
            return
        rows = max(1, _CHUNK // max(1, self._bytes))
        buffer = memoryview(bytearray(min(rows, len(self)) * self._bytes))
        try:
            with self.path.open("rb", buffering=0) as file:
                for first in range(0, len(self), rows):
                    self._read(file, first, buffer[: min(rows, len(self) - first) * self._bytes])
        except OSError as error:
            raise BadFile(f"cannot read {self.path}: {error.strerror}") from None
        _checked[self.path, self.name] = version

    def __iter__(self) -> Any:
        return (self[row] for row in range(len(self)))

    def to(self, device: torch.device | str) -> Tensor:
        """Read all rows into memory."""
        return self[range(len(self))].to(device)


def _salt(owner: str, name: str) -> int:
    return zlib.crc32(f"{owner} {name} ".encode())


def _sum(salt: int, row: int, data: memoryview) -> int:
    """Compute the checksum of a row."""
    return zlib.crc32(data, zlib.crc32(b"%d" % row, salt))


class TensorDraft:
    """A safetensors file under construction, which survives its process. Written and synced rows can be resumed.

    It is beside its target under a temporary name, and `finish` renames it. Rows may be written in any order and give
    equal bytes.
    """

    def __init__(self, target: Path, shapes: Shapes, metadata: Mapping[str, Any]) -> None:
        """Open the draft of `target`, keeping rows of an earlier process if the shapes are the same."""
        self.target, self.path = target, own_path(target.with_name(target.name + ".part"))
        sums = {name + _SUMS: (torch.int64, shape[:1]) for name, (_, shape) in shapes.items()}
        header, self._starts, self._size = _header({**shapes, **sums}, metadata)
        self._bytes = {n: math.prod(shape[1:]) * dtype.itemsize for n, (dtype, shape) in shapes.items()}
        self._dtypes = {name: dtype for name, (dtype, _) in shapes.items()}
        self._salts = {name: _salt(target.stem, name) for name in shapes}
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            self._file: BinaryIO = self.path.open("r+b", buffering=0)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        try:
            self.resumed = self._file.read(len(header)) == header
            """Whether an earlier process wrote to it."""
            if not self.resumed:
                self._file.truncate(0)
                self._write(0, memoryview(header))
        except OSError as error:
            self._file.close()
            raise _unwritable(self.path, error) from error

    def put(self, name: str, row: int, values: Tensor) -> None:
        """Write rows `row`, `row + 1`, ... of a tensor, and their checksums."""
        data, size = bytes_of(values.detach().to("cpu", self._dtypes[name]).contiguous()), self._bytes[name]
        rows = ((row + n, data[n * size : (n + 1) * size]) for n in range(len(values)))
        sums = array("q", [_sum(self._salts[name], number, content) for number, content in rows])
        try:
            self._write(self._starts[name] + row * size, data)
            self._write(self._starts[name + _SUMS] + row * 8, memoryview(sums.tobytes()))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def sync(self) -> None:
        """Flush written rows to disk, so that they survive a power failure."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def finish(self) -> None:
        """Complete the file and rename it to its target.

        Raises BadFile and deletes the draft if rows written by an earlier process are damaged.
        """
        try:
            self._file.truncate(self._size)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.sync()
        self._file.close()
        if self.resumed:
            self._check()
        put_file(self.path, self.target)

    def _check(self) -> None:
        try:
            for name in self._dtypes:
                TensorRows(self.path, name, self.target.stem).check()
        except BadFile:
            self.path.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Close the draft and leave it for a later process."""
        self._file.close()

    def _write(self, start: int, data: memoryview) -> None:
        self._file.seek(start)
        while data:  # an unbuffered write may be partial
            data = data[self._file.write(data) :]


def _header(shapes: Shapes, metadata: Mapping[str, Any]) -> tuple[bytes, dict[str, int], int]:
    """Return (header bytes, offset of each tensor, file size) in the format of safetensors."""
    entries: dict[str, Any] = {"__metadata__": {KEY: packed_metadata(metadata)}}
    offset, starts = 0, {}
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: (-item[1][0].itemsize, item[0])):
        end = offset + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        starts[name], offset = offset, end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    first = struct.pack("<Q", len(text)) + text
    return first, {name: start + len(first) for name, start in starts.items()}, len(first) + offset


def _unwritable(path: Path, error: OSError) -> Unavailable:
    return unwritable(f"cannot write {path}", error, _REMEDY)
