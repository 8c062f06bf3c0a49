"""Reading PyTorch files that came from elsewhere: plain tensors, or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from sglora_cli.errors import BadFile

GIGABYTE = 10**9
ADAPTER_LIMIT, CHECKPOINT_LIMIT = 2 * GIGABYTE, 20 * GIGABYTE


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

    Unpickling can run any program, so nothing is loaded without `weights_only`.
    """
    check_size(path, limit)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise BadFile(
            f"{path} is a pickle of more than plain tensors: loading it could run any program, so it is not loaded",
            "save its tensors as .safetensors in the program that wrote it",
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadFile(f"{path} is not a whole PyTorch file: {reason}", "fetch it again") from None
