"""Read untrusted PyTorch files. Only files of plain tensors are accepted.

torch.save writes an archive: a pickle that describes everything but the numbers, and one record of bytes per storage.
Old versions wrote a stream of five pickles (a magic number, a version, facts of the machine, the content, the keys of
storages), followed by each storage with its length. In both cases, a storage cannot be longer than the file.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from sglora_cli.adapter import plain_pickle
from sglora_cli.errors import BadFile
from sglora_cli.files.untrusted import check_regular

GIGABYTE = 10**9
ADAPTER_LIMIT, CHECKPOINT_LIMIT = 2 * GIGABYTE, 20 * GIGABYTE
PICKLE_STARTS = (b"PK", b"\x80\x02")
"""First bytes of a file of torch.save: a ZIP archive, or a bare pickle of old versions."""
PICKLE_LIMIT = 4_000_000
"""The most bytes of a pickle, and of an archive's directory. A checkpoint of five thousand tensors needs a quarter."""
PARTS_LIMIT, DEPTH_LIMIT = 100_000, 20
"""A checkpoint has some thousand tensors in three nested dictionaries. A pickle may reference one list many times, so a
kilobyte can expand to an astronomical number of parts."""
GROWTH_LIMIT = 4
"""The most bytes of all tensors per byte of the file. Tensors may share numbers, and the file may be compressed."""
_CHUNK = 1_000_000
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001


def check_size(path: Path, limit: int) -> None:
    """Raise BadFile for a file that is too large, before anything is allocated, or that is a device or a pipe."""
    check_regular(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    if size > limit:
        raise BadFile(
            f"{path} has {size / GIGABYTE:.1f} GB, the limit is {limit / GIGABYTE:g} GB",
            "check that it is the right file",
        )


def is_pickle(path: Path) -> bool:
    """Return whether a file begins like one of torch.save. Raises BadFile if it cannot be read."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            return starts_pickle(file.read(9))
    except FileNotFoundError:
        raise BadFile.missing(path) from None
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None


def starts_pickle(start: bytes) -> bool:
    """Return whether these first nine bytes are of a file of torch.save.

    A safetensors file begins with the size of its header, which may happen to be the same two bytes.
    """
    return start[:2] in PICKLE_STARTS and start[8:9] != b"{"


def load_pickle(path: Path, limit: int = CHECKPOINT_LIMIT) -> Any:
    """Read a PyTorch file to the CPU. Raises BadFile for anything but tensors, numbers, strings and dictionaries.

    Unpickling can run arbitrary code, so the pickle is parsed instead, see plain_pickle.
    """
    check_size(path, limit)
    size = path.stat().st_size
    try:
        with _Sparing(path) as file:
            start = file.read(2)
            file.seek(0)
            content = _from_archive(path, file, size) if start == b"PK" else _from_stream(file, size)
    except plain_pickle.Refused:
        raise BadFile(
            f"{path} is a pickle of more than plain tensors, and loading it could run arbitrary code",
            "save its tensors as .safetensors in the program that wrote it",
        ) from None
    except plain_pickle.TooFewNumbers as error:
        raise BadFile(f"{path} has {error}", "save it with plain numbers") from None
    except (BadFile, MemoryError):  # allocations are bounded by the file, so a MemoryError is not the file's fault
        raise
    except Exception as error:  # a damaged byte may cause any error in the reader
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise BadFile(f"{path} is not a valid PyTorch file: {reason}", "fetch it again") from None
    _check_parts(path, content, GROWTH_LIMIT * size)
    return content


class _Sparing(io.FileIO):
    """A file that limits the size of reads, as zipfile would read a directory of any size that the file declares."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > PICKLE_LIMIT:
            raise ValueError(f"it has a part of {size} bytes that is not a tensor, the limit is {PICKLE_LIMIT}")
        return super().read(-1 if size is None else size) or b""


class _Storages:
    """The storages of a file by key, each with its bytes and its number type."""

    def __init__(self) -> None:
        self.bytes: dict[str, Tensor] = {}
        self.dtypes: dict[str, torch.dtype] = {}

    def flat(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """Return all numbers of a storage, zeros until `fill`. Raises ValueError if type or size are inconsistent."""
        size = count * dtype.itemsize
        if key not in self.bytes:
            self.bytes[key], self.dtypes[key] = torch.zeros(size, dtype=torch.uint8), dtype
        if self.dtypes[key] != dtype or len(self.bytes[key]) != size:
            raise ValueError(f"storage {key!r} is used with different types or sizes")
        return self.bytes[key].view(dtype)

    def fill(self, key: str, file: IO[bytes]) -> None:
        """Read the bytes of a storage in place. Raises EOFError if the file ends early."""
        rest = self.bytes[key]
        while len(rest):
            piece = bytearray(file.read(min(_CHUNK, len(rest))))
            if not piece:
                raise EOFError(f"storage {key!r} is {len(rest)} bytes too short")
            rest[: len(piece)] = torch.frombuffer(piece, dtype=torch.uint8)
            rest = rest[len(piece) :]


def _from_archive(path: Path, file: IO[bytes], size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        records = {record.filename: record for record in archive.infolist()}
        if len(records) < len(archive.infolist()):
            raise ValueError("two of its records have the same name")
        total = sum(record.file_size for record in records.values())
        if total > GROWTH_LIMIT * size:
            raise BadFile(
                f"{path} would unpack to {total} bytes but has only {size}", "check that it is the right file"
            )
        pickles = [name for name in records if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} records named data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in records:  # TorchScript, which contains code as well as tensors
            raise plain_pickle.Refused
        order = f"{folder}byteorder"
        _check_order(_record(archive, order).decode() if order in records else "little")
        storages = _Storages()

        def read_storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            if (record := records.get(f"{folder}data/{key}")) is None:
                raise ValueError(f"storage {key!r} is missing")
            new = key not in storages.bytes
            _check_length(key, record.file_size, dtype, count)
            flat = storages.flat(key, dtype, count)
            if new:
                with archive.open(record) as opened:
                    storages.fill(key, opened)
            return flat

        return plain_pickle.read(io.BytesIO(_record(archive, pickles[0])), read_storage)


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a record that is not a storage."""
    with archive.open(name) as opened:
        content = opened.read(PICKLE_LIMIT + 1)
    if len(content) > PICKLE_LIMIT:
        raise ValueError(f"its record {name} is larger than {PICKLE_LIMIT} bytes")
    return content


def _from_stream(file: IO[bytes], size: int) -> Any:
    _check_order("little")
    storages, left = _Storages(), size

    def expect_storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        nonlocal left
        if key not in storages.bytes:
            left -= count * dtype.itemsize
        if left < 0:
            raise ValueError(f"storage {key!r} of {count} numbers is larger than the file")
        return storages.flat(key, dtype, count)

    def no_storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        raise plain_pickle.Refused

    head = io.BytesIO(file.read(PICKLE_LIMIT))
    magic, version, _ = (plain_pickle.read(head, no_storage) for _ in range(3))
    if (magic, version) != (_MAGIC, _VERSION):
        raise ValueError("it does not start with the header of torch.save")
    content = plain_pickle.read(head, expect_storage)
    keys = plain_pickle.read(head, no_storage)
    if not isinstance(keys, list) or len(keys) != len(storages.bytes) or set(keys) != set(storages.bytes):
        raise ValueError("its storages are not those of its tensors")
    file.seek(head.tell())
    for key in keys:
        dtype = storages.dtypes[key]
        _check_length(key, len(storages.bytes[key]), dtype, int.from_bytes(file.read(8), "little"))
        storages.fill(key, file)
    return content


def _check_order(order: str) -> None:
    if order != sys.byteorder:
        raise ValueError(f"its byte order is {order!r}, but this machine's is {sys.byteorder!r}")


def _check_length(key: str, size: int, dtype: torch.dtype, count: int) -> None:
    if size != count * dtype.itemsize:
        raise ValueError(f"storage {key!r} has {size} bytes, not {count} numbers of {dtype.itemsize} bytes")


def _check_parts(path: Path, content: Any, size: int) -> None:
    """Raise BadFile for content that is too large or not plain. Otherwise later code could traverse it endlessly, or
    copy one large tensor under thousands of names.

    size: the most bytes of all tensors.
    """
    level, count = [content], 0
    for _ in range(DEPTH_LIMIT):
        deeper: list[Any] = []
        for part in level:
            if isinstance(part, Tensor):
                size -= part.nbytes
                if size < 0:
                    raise BadFile(f"{path} references the same numbers too often", "save each tensor once")
            elif isinstance(part, int) and part.bit_length() > 64:
                raise BadFile(f"{path} has a number of {part.bit_length()} bits", "check that it is the right file")
            elif isinstance(part, dict | list | tuple):
                count += len(part) * (2 if isinstance(part, dict) else 1)
                if count > PARTS_LIMIT:
                    raise BadFile(f"{path} has more than {PARTS_LIMIT} parts", "check that it is the right file")
                deeper += [*part, *part.values()] if isinstance(part, dict) else part
            elif not isinstance(part, int | float | str | torch.dtype | None):
                raise BadFile(
                    f"{path} has values other than numbers, strings, containers and tensors",
                    "check that it is the right file",
                )
        if not deeper:
            return
        level = deeper
    raise BadFile(f"{path} has containers nested more than {DEPTH_LIMIT} deep", "check that it is the right file")
