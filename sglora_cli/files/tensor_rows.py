"""Tensors too large for memory: safetensors files written and read row by row.

A row is everything at one index of a tensor's first axis. Shapes: R rows.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sglora_cli.errors import BadFile, Unavailable, unwritable
from sglora_cli.files.atomic import put_file
from sglora_cli.files.tensors import KEY, packed_metadata, safetensors_header

_NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}

_REMEDY = "make room, or move the cache with SGLORA_HOME; what is done is kept"

Shapes = Mapping[str, tuple[torch.dtype, Sequence[int]]]


class TensorRows:
    """One tensor (R, ...) of a file. Rows are read when they are asked for, and nothing is kept.

    >>> rows[[3, 3, 0]].shape                                       # doctest: +SKIP
    torch.Size([3, 49, 192])
    """

    def __init__(self, path: Path, name: str) -> None:
        """Raises BadFile unless the file is whole and has this tensor, of floating point numbers."""
        entries = safetensors_header(path)
        try:
            entry = entries[name]
            self.shape, self.dtype = tuple(int(n) for n in entry["shape"]), _DTYPES[entry["dtype"]]
            start, end = (int(n) for n in entry["data_offsets"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise BadFile(f"{path} has no tensor {name!r} of floating point numbers") from None
        self.path, self._start = path, _first_byte(path) + start
        self._bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        size = path.stat().st_size - _first_byte(path)
        whole = 0 <= start <= end <= size and all(0 <= n <= size for n in self.shape) and self.shape
        if not whole or end - start != self.shape[0] * self._bytes:
            raise BadFile(f"{path}: tensor {name!r} of shape {list(self.shape)} is not whole")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | Sequence[int]) -> Tensor:
        """Row(s), copied: (...) of one number, (R, ...) of a list."""
        if isinstance(rows, int):
            return self[[rows]][0]
        tensor = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        into = _bytes_of(tensor)
        try:
            with self.path.open("rb", buffering=0) as file:
                for n, row in enumerate(rows):
                    row = range(len(self))[row]  # as lists: -1 is the last, beyond the end is an IndexError
                    file.seek(self._start + row * self._bytes)
                    if file.readinto(into[n * self._bytes : (n + 1) * self._bytes]) != self._bytes:
                        raise BadFile(f"{self.path} ends in the middle of a row", "remove it, it will be made again")
        except OSError as error:
            raise BadFile(f"cannot read {self.path}: {error.strerror}") from None
        return tensor

    def __iter__(self) -> Any:
        return (self[row] for row in range(len(self)))

    def to(self, device: torch.device | str) -> Tensor:
        """All rows, in memory."""
        return self[range(len(self))].to(device)


def _first_byte(path: Path) -> int:
    """Where a safetensors file's numbers begin."""
    with path.open("rb") as file:
        return 8 + int(struct.unpack("<Q", file.read(8))[0])


class TensorDraft:
    """A safetensors file that grows, and outlives its process: what was written and synced can be gone on with.

    It lies beside its target, under a name of its own; `finish` gives it the target's. Written in any order, equal
    rows give equal bytes.
    """

    def __init__(self, target: Path, shapes: Shapes, metadata: Mapping[str, Any]) -> None:
        """Open the draft of `target`, keeping what an earlier process wrote if it was of the same shapes."""
        self.target, self.path = target, target.with_name(target.name + ".part")
        header, self._starts, self._size = _header(shapes, metadata)
        self._bytes = {n: math.prod(shape[1:]) * dtype.itemsize for n, (dtype, shape) in shapes.items()}
        self._dtypes = {name: dtype for name, (dtype, _) in shapes.items()}
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
        """Write rows `row`, `row + 1`, ... of a tensor."""
        data = _bytes_of(values.detach().to("cpu", self._dtypes[name]).contiguous())
        try:
            self._write(self._starts[name] + row * self._bytes[name], data)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def sync(self) -> None:
        """What was put survives a power cut from now on."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def finish(self) -> None:
        """The file is whole: it gets its name."""
        try:
            self._file.truncate(self._size)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.sync()
        self._file.close()
        put_file(self.path, self.target)

    def close(self) -> None:
        """Leave the draft where it is, for a later process."""
        self._file.close()

    def _write(self, start: int, data: memoryview) -> None:
        self._file.seek(start)
        while data:  # an unbuffered file may take less than it is given
            data = data[self._file.write(data) :]


def _header(shapes: Shapes, metadata: Mapping[str, Any]) -> tuple[bytes, dict[str, int], int]:
    """(first bytes of the file, where each tensor starts, size of the file) in safetensors' format."""
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


def _bytes_of(tensor: Tensor) -> memoryview:
    """A contiguous tensor's memory."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy().data)


def _unwritable(path: Path, error: OSError) -> Unavailable:
    return unwritable(f"cannot write {path}", error, _REMEDY)
