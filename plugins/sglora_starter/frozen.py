"""A file of weights whose hash is part of the fingerprint: what is loaded are the bytes that were hashed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from sglora_cli.api import BadFile, data_hash, file_hash, read_bytes

_LIMIT = 1 << 30


class FrozenFile:
    """A file that is hashed, loaded, or first one and then the other."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def sha256(self) -> str:
        """In hexadecimal. Raises BadFile if the file cannot be read."""
        return file_hash(self.path)

    def read(self) -> bytes:
        """All of it. Raises BadFile if it cannot be read, or has changed since it was hashed."""
        data = read_bytes(self.path, _LIMIT)
        found = data_hash(data)
        if vars(self).setdefault("sha256", found) != found:  # where cached_property keeps it
            raise BadFile(f"{self.path} changed after its fingerprint was taken", "run it again")
        return data
