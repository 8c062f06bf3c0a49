"""The adapters on this machine: those in the user cache, which are named after their sentence, and those in any folder.

No torch at import time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile
from sglora_cli.files.atomic import drop_all_drafts
from sglora_cli.files.hashes import data_hash
from sglora_cli.files.names import sentence_stem
from sglora_cli.files.swap import ABSENT, state_of, swapped
from sglora_cli.files.tensors import read_metadata
from sglora_cli.system.paths import cache_folder

SUFFIX = ".safetensors"
_PEFT_WEIGHTS = "adapter_model.safetensors"


def kept_folder() -> Path:
    """Return the folder of the user cache where `sglora generate` without -o writes adapters."""
    return cache_folder() / "adapters"


def keep(data: bytes, sentence: str) -> Path:
    """Write an adapter file into the user cache, named after its sentence, and return its path.

    Equal bytes are stored once. Another adapter with the same name gets the next number. Raises Unavailable.
    """
    folder, digest = kept_folder(), data_hash(data)
    drop_all_drafts(folder)
    stem = sentence_stem(sentence)
    for number in count(1):
        path = folder / f"{stem}{f'-{number}' if number > 1 else ''}{SUFFIX}"
        with suppress(BadFile):  # skip a name that an unreadable file occupies
            state = state_of(path)
            if state == digest or (state == ABSENT and (swapped(path, ABSENT, data) or state_of(path) == digest)):
                return path
    raise AssertionError("unreachable")


def found(name: Path) -> Path:
    """Return the adapter for a path or name: an existing path, or else the adapter of that name in the user cache.

    A name may lack its suffix.
    """
    if os.path.exists(name) or name.name != str(name):
        return name
    for path in (Path(f"{name}{SUFFIX}"), kept_folder() / name, kept_folder() / f"{name}{SUFFIX}"):
        if os.path.isfile(path):
            return path
    return name


@dataclass(frozen=True)
class ListedAdapter:
    """An adapter and its metadata."""

    path: Path
    about: dict[str, Any]
    changed: float
    """When the file was written, in seconds since 1970."""

    @property
    def call(self) -> str:
        """The argument for commands: its name if it is in the user cache and no file hides it, or else its path."""
        kept = self.path.parent == kept_folder()
        return self.path.name if kept and not Path(self.path.name).exists() else str(self.path)

    def say(self, key: str) -> str:
        """Return a string of its metadata; "" if it is missing."""
        value = self.about.get(key)
        return value if isinstance(value, str) else ""


def listed(folders: Sequence[Path]) -> list[ListedAdapter]:
    """Return the adapters of sglora in these folders, the newest first. Other files are skipped."""
    adapters = {one.path: one for folder in folders for one in _within(folder)}
    return sorted(adapters.values(), key=lambda one: (-one.changed, one.path))


def _within(folder: Path) -> Iterator[ListedAdapter]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        weights = path / _PEFT_WEIGHTS if path.is_dir() else path
        if path.name.startswith(".") or weights.suffix != SUFFIX or not weights.is_file():
            continue
        with suppress(BadFile, OSError):
            about = read_metadata(weights)
            if about.get("kind") == "adapter":
                yield ListedAdapter(path, about, weights.stat().st_mtime)
