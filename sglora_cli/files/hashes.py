"""Hashes of files and of content, used as names for derived data."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile
from sglora_cli.files.untrusted import check_regular


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises BadFile if it is not a file or cannot be read."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None


def first_copies(paths: Sequence[Path]) -> dict[Path, Path]:
    """Map each file to the first file with the same bytes, which may be itself.

    Only reads files of equal size. A file that cannot be read is treated as unique.
    """
    sized: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        with suppress(OSError):
            sized[path.stat().st_size].append(path)
    first_of = {path: path for path in paths}
    for equal in sized.values():
        if len(equal) > 1:
            known: dict[str, Path] = {}
            for path in equal:
                with suppress(BadFile):
                    first_of[path] = known.setdefault(file_hash(path), path)
    return first_of


def is_intact(path: Path, sha256: str) -> bool:
    """Return whether a cache file exists and has this SHA-256 in hexadecimal. Reads the complete file."""
    try:
        return file_hash(path) == sha256
    except BadFile:
        return False


def data_hash(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal, equal to `file_hash` of a file with this content."""
    return hashlib.sha256(data).hexdigest()


def content_hash(*parts: Any) -> str:
    """Return the SHA-256 of tensors, strings and JSON values in hexadecimal, as a name for derived data."""
    import torch

    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            array = part.detach().cpu().contiguous()
            digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
            digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()
