"""Rows of tensors in plain safetensors files, read by their place: a file of any size costs what is read of it.

A row is everything at one index of a tensor's first axis. Files of the cache have checksums of their rows beside
(`tensor_rows`); these files have none, and whoever reads a row checks what it says.
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
    """One tensor (R, ...) of a safetensors file. Nothing is read before a row is asked for, and nothing is kept."""

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int
    """Where its first byte is in the file."""

    def read(self, first: int, count: int) -> Tensor:
        """Rows `first`, `first + 1`, ... copied: (count, ...). Raises BadFile."""
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
            raise BadFile(f"{self.path} ends in the middle of a row", "fetch it again")
        return tensor


def plain_rows(path: Path, shapes: Mapping[str, Sequence[int | None]], dtype: torch.dtype) -> dict[str, PlainRows]:
    """Tensors of a file by name, each of its shape; None is any length of at least 1. Raises BadFile."""
    header = safetensors_header(path)
    found = {}
    for name, shape in shapes.items():
        has, of, start = tensor_place(path, header, name, DTYPES)
        fits = len(has) == len(shape) and all(n == m if m is not None else n for n, m in zip(has, shape, strict=True))
        if of != dtype or not fits:
            wanted = " x ".join("any" if n is None else str(n) for n in shape)
            raise BadFile(f"{path}: tensor {name!r} has the shape {list(has)}, {wanted} of {dtype} are expected")
        found[name] = PlainRows(path, has, of, start)
    return found


def tensor_place(
    path: Path, header: Mapping[str, Any], name: str, dtypes: Mapping[str, torch.dtype]
) -> tuple[tuple[int, ...], torch.dtype, int]:
    """Shape and type of a tensor, and its first byte in the file. Raises BadFile unless the file has all of it."""
    try:
        entry = header[name]
        shape, dtype = tuple(int(n) for n in entry["shape"]), dtypes[entry["dtype"]]
        start, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError, OverflowError):
        kind = "floating point numbers" if dtypes is DTYPES else "whole numbers"
        raise BadFile(f"{path} has no tensor {name!r} of {kind}") from None
    first = _first_byte(path)
    size = path.stat().st_size - first
    whole = 0 <= start <= end <= size and all(0 <= n <= size for n in shape) and shape
    if not whole or end - start != math.prod(shape) * dtype.itemsize:
        raise BadFile(f"{path}: tensor {name!r} of shape {list(shape)} is not whole")
    return shape, dtype, first + start


def bytes_of(tensor: Tensor) -> memoryview:
    """A contiguous tensor's memory."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy().data)


def _first_byte(path: Path) -> int:
    """Where a safetensors file's numbers begin."""
    with path.open("rb") as file:
        return 8 + int(struct.unpack("<Q", file.read(8))[0])
