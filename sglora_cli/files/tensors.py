"""Self-describing safetensors files, written atomically, with equal bytes for equal content.

A single metadata key `sglora` contains sorted JSON, because safetensors writes several keys in
a different order in every process.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.errors import BadFile
from sglora_cli.files import atomic
from sglora_cli.files.atomic import drop_drafts, write_bytes
from sglora_cli.files.attempts import own_path
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.text import json_text
from sglora_cli.files.untrusted import check_regular, json_value

if TYPE_CHECKING:
    from torch import Tensor


KEY = "sglora"
_HEADER_LIMIT = 50_000_000
_COPIED_AT_ONCE = 16


def packed_metadata(metadata: Mapping[str, Any]) -> str:
    """Return the value of the metadata key."""
    return json_text(metadata, sort_keys=True, ensure_ascii=False)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata. Equal inputs give equal bytes."""
    write_bytes(path, packed_tensors(tensors, metadata))


def packed_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file written by `save_tensors`."""
    from safetensors.torch import save

    header = {KEY: packed_metadata(metadata)}
    content: bytes = save({name: tensors[name].contiguous() for name in sorted(tensors)}, metadata=header)
    return content


def load_tensors(path: Path, names: tuple[str, ...] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors of a safetensors file, all or only `names`, and its `sglora` metadata ({} if there is none).

    Raises BadFile for anything but a complete safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    metadata = read_metadata(path)
    if not _is_text(path):
        return _parsed(path, names), metadata
    try:
        with safe_open(str(path), "pt") as file:
            wanted = names if names is not None else tuple(file.keys())
            missing = set(wanted) - set(file.keys())
            if missing:
                raise BadFile(f"{path} has no tensor {sorted(missing)[0]!r}")
            tensors = {name: file.get_tensor(name) for name in wanted}
            # Windows does not let a file be replaced while tensors are views of it
            return {name: tensor.clone() for name, tensor in tensors.items()} if atomic.WINDOWS else tensors, metadata
    except (SafetensorError, OSError, ValueError) as error:
        raise BadFile(f"{path} is not a complete safetensors file: {error}", "download or generate it again") from None


def _is_text(path: Path) -> bool:
    """Whether a path is UTF-8, which safetensors needs to open it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parsed(path: Path, names: tuple[str, ...] | None) -> dict[str, Tensor]:
    """Return tensors of a safetensors file, all or only `names`, after reading all of it. Raises BadFile."""
    try:
        tensors = parse_tensors(path.read_bytes(), str(path))
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    if missing := set(names or ()) - set(tensors):
        raise BadFile(f"{path} has no tensor {min(missing)!r}")
    return tensors if names is None else {name: tensors[name] for name in names}


def read_tensors(path: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return copies of the tensors of a safetensors file whose names are wanted.

    `load_tensors` returns views of the file. They change if the file is overwritten, and everything read counts as
    memory until the last view is deleted, so only a few tensors are copied at a time. Raises BadFile as it does.
    """
    names = [name for name in tensor_names(path)[0] if wanted(name)]
    tensors: dict[str, Tensor] = {}
    for first in range(0, len(names), _COPIED_AT_ONCE):
        mapped, _ = load_tensors(path, tuple(names[first : first + _COPIED_AT_ONCE]))
        tensors |= {name: tensor.clone() for name, tensor in mapped.items()}
    return tensors


def parse_tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """Parse the bytes of a safetensors file. Raises BadFile."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise BadFile(f"{where} is not a complete safetensors file: {error}", "download it again") from None


_SEAL = "seal"


def save_sealed(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Like `save_tensors`, for a cache file, with a checksum of its content and file name."""
    save_tensors(path, tensors, {**metadata, _SEAL: _seal(path, tensors, metadata)})


def load_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load tensors into memory, and metadata, of a file of `save_sealed`. Raises BadFile if it is damaged."""
    mapped, metadata = load_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in mapped.items()}  # copies, because the file may change
    if metadata.pop(_SEAL, "") != _seal(path, tensors, metadata):
        raise BadFile(f"{path} is damaged", "run the command again to recreate it")
    return tensors, metadata


def _seal(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    names, owner = sorted(tensors), path.name.partition(".")[0]  # equal for all attempts, see `files/attempts.py`
    return content_hash(owner, dict(metadata), names, *(tensors[name] for name in names))


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the `sglora` metadata of a safetensors file without reading its tensors."""
    return tensor_names(path)[1]


def tensor_names(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Return the tensor names and the `sglora` metadata of a safetensors file. Reads only the header."""
    header = safetensors_header(path)
    metadata = header.pop("__metadata__", {})
    return list(header), _metadata_of(path, metadata.get(KEY) if isinstance(metadata, dict) else None)


def _metadata_of(path: Path, text: Any) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        metadata = json_value(text)
    except (ValueError, TypeError):
        raise BadFile(f"{path}: its {KEY!r} metadata is not JSON") from None
    if not isinstance(metadata, dict):
        raise BadFile(f"{path}: its {KEY!r} metadata is not a table")
    return metadata


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file. Raises BadFile."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
            if not 0 < size <= min(_HEADER_LIMIT, path.stat().st_size):
                raise BadFile(f"{path} is not a safetensors file", "an adapter is a .safetensors file")
            header = json_value(file.read(size).decode("utf-8"))
    except FileNotFoundError:
        raise BadFile.missing(path) from None
    except (OSError, ValueError) as error:
        raise BadFile(f"{path} is not a safetensors file: {error}") from None
    if not isinstance(header, dict):
        raise BadFile(f"{path} is not a safetensors file: its header is not a table")
    return header


SECONDS = 20.0
"""Minimum time between checkpoints. At most about this much work is lost when a process is killed."""


class Checkpoint:
    """Saves the state of long work as tensors and metadata. `first` is called before each write, to sync the data that
    the checkpoint refers to."""

    def __init__(self, path: Path, first: Callable[[], None] = lambda: None) -> None:
        self.path, self._first, self._last = own_path(path), first, time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the last saved state, or None if there is none or it is damaged."""
        try:
            return load_sealed(self.path)
        except BadFile:
            return None

    @property
    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._last >= SECONDS

    def save(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
        self._first()
        save_sealed(self.path, tensors, metadata or {})
        self._last = time.monotonic()

    def drop(self) -> None:
        """Delete the checkpoint when the work is complete."""
        self.path.unlink(missing_ok=True)
        drop_drafts(self.path)
