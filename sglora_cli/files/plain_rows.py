"""Read rows of tensors in plain safetensors files by offset, without reading the rest of the file.

A row is everything at one index of a tensor's first axis. Files of the cache have checksums of their rows
(`tensor_rows`). Plain files do not, so the reader of a row has to validate its content.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.errors import BadFile
from sglora_cli.files.tensors import safetensors_header

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


@dataclass(frozen=True)
class PlainRows:
    """One tensor (R, ...) of a safetensors file. Rows are read on demand and not cached."""

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int
    """Offset of its first byte in the file."""

    def read(self, first: int, count: int) -> Tensor:
        """Read and return rows `first`, `first + 1`, ...: (count, ...). Raises BadFile."""
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        tensor = torch.empty((count, *self.shape[1:]), dtype=self.dtype)
        into = bytes_of(tensor)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.start + first * row)
                while into and (size := file.readinto(into)):
                    into = into[size:]
        except OSError as error:
            raise BadFile(f"cannot read {self.path}: {error.strerror}") from None
        if into:
            raise BadFile(f"{self.path} ends in the middle of a row", "download it again")
        return tensor


def plain_rows(path: Path, shapes: Mapping[str, Sequence[int | None]], dtype: torch.dtype) -> dict[str, PlainRows]:
    """Return tensors of a file by name and check their shapes. None means any length of at least 1. Raises BadFile."""
    header = safetensors_header(path)
    found = {}
    for name, shape in shapes.items():
        has, of, start = tensor_place(path, header, name, DTYPES)
        fits = len(has) == len(shape) and all(n == m if m is not None else n for n, m in zip(has, shape, strict=True))
        if of != dtype or not fits:
            wanted = " x ".join("any" if n is None else str(n) for n in shape)
            raise BadFile(f"{path}: tensor {name!r} has shape {list(has)} of {of}, expected {wanted} of {dtype}")
        found[name] = PlainRows(path, has, of, start)
    return found


def tensor_place(
    path: Path, header: Mapping[str, Any], name: str, dtypes: Mapping[str, torch.dtype]
) -> tuple[tuple[int, ...], torch.dtype, int]:
    """Return shape, dtype and file offset of a tensor. Raises BadFile unless the file contains all of it."""
    try:
        entry = header[name]
        shape, dtype = tuple(int(n) for n in entry["shape"]), dtypes[entry["dtype"]]
        start, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError, OverflowError):
        kind = "floating-point numbers" if dtypes is DTYPES else "integers"
        raise BadFile(f"{path} has no tensor {name!r} of {kind}") from None
    first = _first_byte(path)
    size = path.stat().st_size - first
    whole = 0 <= start <= end <= size and all(0 <= n <= size for n in shape) and shape
    if not whole or end - start != math.prod(shape) * dtype.itemsize:
        raise BadFile(f"{path}: tensor {name!r} of shape {list(shape)} is incomplete")
    return shape, dtype, first + start


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy().data)


def _first_byte(path: Path) -> int:
    """Return the offset of a safetensors file's data."""
    with path.open("rb") as file:
        return 8 + int(struct.unpack("<Q", file.read(8))[0])
