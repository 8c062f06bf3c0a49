"""Reading PyTorch files that came from elsewhere: tables of plain tensors, or not at all.

torch.save writes an archive: a pickle that describes everything but the numbers, and a record of bytes a storage. Old
versions wrote one stream of five pickles (a magic number, a version, facts of the machine, the content, keys of
storages) and then each storage with its length. Either way a storage is as long as the file has it.
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

GIGABYTE = 10**9
ADAPTER_LIMIT, CHECKPOINT_LIMIT = 2 * GIGABYTE, 20 * GIGABYTE
PICKLE_STARTS = (b"PK", b"\x80\x02")
"""First bytes of a file of torch.save: a ZIP archive, or a bare pickle of old versions."""
PICKLE_LIMIT = 4_000_000
"""Bytes of a pickle, and of an archive's list of records. A checkpoint of five thousand tensors needs a quarter."""
PARTS_LIMIT, DEPTH_LIMIT = 100_000, 20
"""A checkpoint has some thousand tensors, three tables deep. A pickle may name one list many times: a kilobyte can
stand for more parts than there are atoms."""
GROWTH_LIMIT = 4
"""Bytes of all tensors to bytes of the file. Tensors may share numbers, and somebody may have compressed the file."""
_CHUNK = 1_000_000
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001


def check_size(path: Path, limit: int) -> None:
    """Raises BadFile for a file that is far larger than what it should be, before anything is allocated."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    if size > limit:
        raise BadFile(
            f"{path} has {size / GIGABYTE:.1f} GB, more than {limit / GIGABYTE:g} GB", "is it the right file?"
        )


def load_pickle(path: Path, limit: int = CHECKPOINT_LIMIT) -> Any:
    """The content of a PyTorch file, on the CPU. Raises BadFile for anything but tensors, numbers, texts and tables.

    Unpickling can run any program, so the pickle is not unpickled: see plain_pickle.
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
            f"{path} is a pickle of more than plain tensors: loading it could run any program, so it is not loaded",
            "save its tensors as .safetensors in the program that wrote it",
        ) from None
    except plain_pickle.TooFewNumbers as error:
        raise BadFile(f"{path} holds {error}", "save it as plain numbers") from None
    except (BadFile, MemoryError):  # what is allocated is no more than the file has: then it is the machine's lack
        raise
    except Exception as error:  # a broken byte may cause any error in the reader
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise BadFile(f"{path} is not a whole PyTorch file: {reason}", "fetch it again") from None
    _check_parts(path, content, GROWTH_LIMIT * size)
    return content


class _Sparing(io.FileIO):
    """A file that is read in small pieces only: zipfile would read a list of records as long as the file says."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > PICKLE_LIMIT:
            raise ValueError(f"it has a part of {size} bytes, more than {PICKLE_LIMIT}, that is no tensor")
        return super().read(-1 if size is None else size) or b""


class _Storages:
    """The storages of a file by their keys, each with its bytes and the type of its numbers."""

    def __init__(self) -> None:
        self.bytes: dict[str, Tensor] = {}
        self.dtypes: dict[str, torch.dtype] = {}

    def flat(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """All numbers of a storage, zeros until it is filled. Raises ValueError for one that is named in two ways."""
        size = count * dtype.itemsize
        if key not in self.bytes:
            self.bytes[key], self.dtypes[key] = torch.zeros(size, dtype=torch.uint8), dtype
        if self.dtypes[key] != dtype or len(self.bytes[key]) != size:
            raise ValueError(f"storage {key!r} is named in two ways")
        return self.bytes[key].view(dtype)

    def fill(self, key: str, file: IO[bytes]) -> None:
        """Read the bytes of a storage in place. Raises EOFError where they end early."""
        rest = self.bytes[key]
        while len(rest):
            piece = bytearray(file.read(min(_CHUNK, len(rest))))
            if not piece:
                raise EOFError(f"storage {key!r} lacks {len(rest)} bytes")
            rest[: len(piece)] = torch.frombuffer(piece, dtype=torch.uint8)
            rest = rest[len(piece) :]


def _from_archive(path: Path, file: IO[bytes], size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        records = {record.filename: record for record in archive.infolist()}
        if len(records) < len(archive.infolist()):
            raise ValueError("two of its records have one name")
        total = sum(record.file_size for record in records.values())
        if total > GROWTH_LIMIT * size:
            raise BadFile(f"{path} would unpack to {total} bytes, and has {size}", "is it the right file?")
        pickles = [name for name in records if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} records of the name data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in records:  # TorchScript: it has code beside its tensors
            raise plain_pickle.Refused
        order = f"{folder}byteorder"
        _check_order(_record(archive, order).decode() if order in records else "little")
        storages = _Storages()

        def read_storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            if (record := records.get(f"{folder}data/{key}")) is None:
                raise ValueError(f"storage {key!r} is not in it")
            new = key not in storages.bytes
            _check_length(key, record.file_size, dtype, count)
            flat = storages.flat(key, dtype, count)
            if new:
                with archive.open(record) as opened:
                    storages.fill(key, opened)
            return flat

        return plain_pickle.read(io.BytesIO(_record(archive, pickles[0])), read_storage)


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of a record that is no storage."""
    with archive.open(name) as opened:
        content = opened.read(PICKLE_LIMIT + 1)
    if len(content) > PICKLE_LIMIT:
        raise ValueError(f"its record {name} has more than {PICKLE_LIMIT} bytes")
    return content


def _from_stream(file: IO[bytes], size: int) -> Any:
    _check_order("little")
    storages, left = _Storages(), size

    def expect_storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        nonlocal left
        if key not in storages.bytes:
            left -= count * dtype.itemsize
        if left < 0:
            raise ValueError(f"storage {key!r} of {count} numbers is not in the file")
        return storages.flat(key, dtype, count)

    def no_storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        raise plain_pickle.Refused

    head = io.BytesIO(file.read(PICKLE_LIMIT))
    magic, version, _ = (plain_pickle.read(head, no_storage) for _ in range(3))
    if (magic, version) != (_MAGIC, _VERSION):
        raise ValueError("it does not begin as torch.save begins a file")
    content = plain_pickle.read(head, expect_storage)
    keys = plain_pickle.read(head, no_storage)
    if not isinstance(keys, list) or len(keys) != len(storages.bytes) or set(keys) != set(storages.bytes):
        raise ValueError("its storages are not those that its tensors name")
    file.seek(head.tell())
    for key in keys:
        dtype = storages.dtypes[key]
        _check_length(key, len(storages.bytes[key]), dtype, int.from_bytes(file.read(8), "little"))
        storages.fill(key, file)
    return content


def _check_order(order: str) -> None:
    if order != sys.byteorder:
        raise ValueError(f"the byte order of its numbers is {order!r}, of this machine {sys.byteorder!r}")


def _check_length(key: str, size: int, dtype: torch.dtype, count: int) -> None:
    if size != count * dtype.itemsize:
        raise ValueError(f"storage {key!r} has {size} bytes, not {count} numbers of {dtype.itemsize} bytes")


def _check_parts(path: Path, content: Any, size: int) -> None:
    """Raises BadFile for more than a table of plain tensors can hold: later code could walk it without end, or copy
    one large tensor under thousands of names.

    size: most bytes of all its tensors.
    """
    level, count = [content], 0
    for _ in range(DEPTH_LIMIT):
        deeper: list[Any] = []
        for part in level:
            if isinstance(part, Tensor):
                size -= part.nbytes
                if size < 0:
                    raise BadFile(f"{path} names the same numbers again and again", "save them once")
            elif isinstance(part, int) and part.bit_length() > 64:
                raise BadFile(f"{path} holds a number of {part.bit_length()} bits", "is it the right file?")
            elif isinstance(part, dict | list | tuple):
                count += len(part) * (2 if isinstance(part, dict) else 1)
                if count > PARTS_LIMIT:
                    raise BadFile(f"{path} holds more than {PARTS_LIMIT} parts", "is it the right file?")
                deeper += [*part, *part.values()] if isinstance(part, dict) else part
            elif not isinstance(part, int | float | str | torch.dtype | None):
                raise BadFile(f"{path} holds more than numbers, texts, tables and tensors", "is it the right file?")
        if not deeper:
            return
        level = deeper
    raise BadFile(f"{path} holds tables more than {DEPTH_LIMIT} deep", "is it the right file?")
