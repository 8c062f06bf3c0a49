"""Downloads through torchvision, which checks what it fetched and keeps what is already whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sglora_cli.api import Unavailable


def fetched(kind: str, data: Path, folder: str, note: Callable[[str], None], captions: bool = True) -> Path:
    """Let torchvision's data set `kind` download itself into a folder below `data`; returns that folder.

    captions: whether its user has to write them.
    Raises Unavailable if it cannot. An archive that is there and whole is not downloaded again.
    """
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: one built for another torch
        raise Unavailable(f"torchvision cannot be used: {error}", "pip install torchvision") from None
    note(f"downloading into {data / folder}")
    try:
        getattr(datasets, kind)(str(data), download=True)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed", f"pip install {error.name}") from None
    except (OSError, RuntimeError, ValueError, EOFError) as error:  # no network, a wrong checksum, a full disk
        raise Unavailable(
            f"{folder} could not be downloaded: {error}", "try again: what is whole and checked is kept"
        ) from None
    if captions:
        note("captions.jsonl is not part of it: write it, one line an image")
    return data / folder
