"""Reading PyTorch files that came from elsewhere: plain tensors, or not at all."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.errors import BadFile

GIGABYTE = 10**9
ADAPTER_LIMIT, CHECKPOINT_LIMIT = 2 * GIGABYTE, 20 * GIGABYTE
PICKLE_STARTS = (b"PK", b"\x80\x02")
"""First bytes of a file of torch.save: a ZIP archive, or a bare pickle of old versions."""
PARTS_LIMIT, DEPTH_LIMIT = 100_000, 20
"""A checkpoint has some thousand tensors, three tables deep. A pickle may name one list many times: a kilobyte can
stand for more parts than there are atoms."""


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
    """The content of a PyTorch file, on the CPU. Raises BadFile for anything but tensors, numbers, strings and tables.

    Unpickling can run any program, so nothing is loaded without `weights_only`.
    """
    check_size(path, limit)
    try:
        _check_unpacked(path, limit)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise BadFile(
            f"{path} is a pickle of more than plain tensors: loading it could run any program, so it is not loaded",
            "save its tensors as .safetensors in the program that wrote it",
        ) from None
    except BadFile:
        raise
    except Exception as error:  # a broken byte may cause any error in the reader
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise BadFile(f"{path} is not a whole PyTorch file: {reason}", "fetch it again") from None
    _check_parts(path, content)
    return content


def _check_unpacked(path: Path, limit: int) -> None:
    """Raises BadFile for an archive that would grow beyond the limit: PyTorch stores, it does not compress."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    with zipfile.ZipFile(path) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
    if total > limit:
        raise BadFile(f"{path} would unpack to {total} bytes, more than {limit}", "is it the right file?")


def _check_parts(path: Path, content: Any) -> None:
    """Raises BadFile for more than a table of plain tensors can hold: later code could walk it without end."""
    level, count = [content], 0
    for _ in range(DEPTH_LIMIT):
        deeper: list[Any] = []
        for part in level:
            if isinstance(part, Tensor):
                _check_tensor(path, part)
            elif isinstance(part, int) and part.bit_length() > 64:
                raise BadFile(f"{path} holds a number of {part.bit_length()} bits", "is it the right file?")
            elif isinstance(part, dict):
                deeper += [*part, *part.values()]
            elif isinstance(part, list | tuple | set | frozenset):
                deeper += part
        count += len(deeper)
        if not deeper:
            return
        if count > PARTS_LIMIT:
            raise BadFile(f"{path} holds more than {PARTS_LIMIT} parts", "is it the right file?")
        level = deeper
    raise BadFile(f"{path} holds tables more than {DEPTH_LIMIT} deep", "is it the right file?")


def _check_tensor(path: Path, x: Tensor) -> None:
    """Raises BadFile unless the file holds all numbers of a tensor: its strides can repeat one number 10^14 times."""
    if x.layout != torch.strided or x.is_quantized or x.device.type != "cpu":
        kind = "quantized" if x.is_quantized else "sparse" if x.layout != torch.strided else x.device.type
        raise BadFile(f"{path} holds a tensor that is {kind}", "save it as plain numbers")
    if x.numel() * x.element_size() > x.untyped_storage().nbytes():
        raise BadFile(
            f"{path} holds a tensor of shape {list(x.shape)} with {x.untyped_storage().nbytes()} bytes of numbers",
            "save it as plain numbers",
        )
