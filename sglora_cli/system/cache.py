"""Content and sizes of the user cache, and safe removal while no running process needs it.

Work that relies on the cache holds a lease while it runs. Cleaning requires that no lease is held.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sglora_cli.errors import Unavailable, UnknownName, UsageError, unwritable
from sglora_cli.system.locks import lock_file, locked, pack_lock, unused_locks
from sglora_cli.system.paths import cache_folder


@dataclass(frozen=True)
class CacheKind:
    """A folder of the cache."""

    name: str
    summary: str
    derived: bool
    """Whether its items can be recomputed. Other kinds are only removed if the user names them."""


CACHE_KINDS = {
    kind.name: kind
    for kind in (
        CacheKind("features", "features of photos and captions from frozen backbones", derived=True),
        CacheKind("embeddings", "embeddings of the photos of `search`, `classify` and `try`", derived=True),
        CacheKind(
            "measured",
            "recalls measured by `bench`, adapters it has yet to measure, and how much adapters depend on the sentence",
            derived=True,
        ),
        CacheKind("fingerprints", "facts about weight and generator files, by modification time", derived=True),
        CacheKind("work", "completed and partial steps of builds", derived=True),
        CacheKind("folds", "packs built by `bench --folds` with tasks left out", derived=True),
        CacheKind("images", "photos unpacked from data sets", derived=True),
        CacheKind("unpacked", "photos unpacked from shards", derived=True),
        CacheKind("downloads", "packs of the hub that are not imported yet", derived=True),
        CacheKind("drafts", "temporary files of killed processes", derived=True),
        CacheKind("adapters", "adapters from `generate` without -o", derived=False),
        CacheKind("rows", "rows files from `bench` without --rows", derived=False),
        CacheKind("origins", "where packs were pulled from", derived=False),
        CacheKind("packs", "packs built, extended or imported on this machine", derived=False),
    )
}
_WHOLE = ("packs", "folds")
"""Kinds in which each folder is one item."""
_STALE = (".draft", ".old", ".tmp")
_HOUR = 3600.0


@dataclass(frozen=True)
class Item:
    """A file or folder that is removed as one."""

    kind: str
    path: Path
    bytes: int
    age_seconds: float
    """Seconds since its last change."""


def items(kind: str) -> list[Item]:
    """Return the items of a kind, oldest first. Raises UnknownName."""
    if kind not in CACHE_KINDS:
        raise UnknownName.of("kind of cache", kind, CACHE_KINDS, "sglora cache info")
    folder = cache_folder() / kind
    if kind == "drafts":
        paths = [path for name in CACHE_KINDS for path in _within(cache_folder() / name) if _is_stale(path)]
    elif kind in _WHOLE:
        paths = [path for path in _children(folder) if not _is_stale(path)]
    else:
        paths = [path for path in _within(folder) if not _is_stale(path) and path.suffix != ".lock"]
    return sorted((_item(kind, path) for path in paths), key=lambda item: (-item.age_seconds, item.path))


def _is_stale(path: Path) -> bool:
    """Return whether a killed process left it. An old version without its new version is kept for recovery."""
    if path.suffix == ".old" and not path.with_name(path.name[1:-4]).exists():
        return False
    return path.name.startswith(".") and path.suffix in _STALE


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _within(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder. A folder left by a killed process counts as one item."""
    for path in _children(folder):
        if path.is_dir() and not path.is_symlink() and not _is_stale(path):
            yield from _within(path)
        else:
            yield path


def _item(kind: str, path: Path) -> Item:
    """Return the size and age of a file or folder. Files deleted in the meantime are not counted."""
    size, changed = 0, 0.0
    for part in [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else [])]:
        with suppress(OSError):
            stat = part.lstat()
            size, changed = size + (0 if part.is_dir() else stat.st_size), max(changed, stat.st_mtime)
    return Item(kind, path, size, max(0.0, time.time() - changed))


@dataclass(frozen=True)
class Cleaned:
    """The items that were or would be removed, and those that were kept with the reasons."""

    removed: Sequence[Item]
    kept: Sequence[tuple[Item, str]]

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.removed)


def to_clean(kinds: Sequence[str], older_than_seconds: float = 0.0) -> list[Item]:
    """Return items that cleaning would remove, of these kinds or of all derived ones. Raises UnknownName."""
    names = kinds or [kind.name for kind in CACHE_KINDS.values() if kind.derived]
    # A process without a lock may still be writing a draft that changed recently.
    least = {"drafts": _HOUR}
    return [
        item
        for name in dict.fromkeys(names)
        for item in items(name)
        if item.age_seconds >= max(older_than_seconds, least.get(name, 0.0))
    ]


def clean(items: Sequence[Item]) -> Cleaned:
    """Remove the items. Raises Unavailable while another process relies on the cache.

    An item that cannot be removed is kept with the reason, and the others are still removed.
    """
    removed, kept = [], []
    with _alone():
        for item in items:
            try:
                _remove(item)
                removed.append(item)
            except (OSError, Unavailable) as error:
                held = "another process is writing it"
                kept.append((item, held if isinstance(error, Unavailable) else str(error.strerror)))
        _tidy()
    return Cleaned(removed, kept)


def _remove(item: Item) -> None:
    """Remove an item under its lock, if it has one. Processes that write a file or change a pack hold its lock."""
    path = item.path
    target = path.with_suffix(".safetensors") if path.suffix == ".checkpoint" else path
    lock: AbstractContextManager[None]
    if item.kind in _WHOLE:
        lock = pack_lock(path, wait=False)
    elif lock_file(target).exists():
        lock = locked(target, wait=False)
    else:
        lock = nullcontext()
    with lock:
        if path.is_dir() and not path.is_symlink():
            old = path.with_name(f".{path.name}.old") if not _is_stale(path) else path
            os.replace(path, old)  # renamed first, so that no process reads a partial folder
            shutil.rmtree(old)
        else:
            path.unlink(missing_ok=True)


def _tidy() -> None:
    """Remove empty folders, and locks of deleted files. No process can need them, see `_alone`."""
    for kind in CACHE_KINDS:
        root = cache_folder() / kind
        folders = [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]
        for folder in sorted(folders, reverse=True):
            with suppress(OSError):
                for lock in unused_locks(folder):
                    lock.unlink()
            if folder != root and kind not in _WHOLE:
                with suppress(OSError):  # not empty
                    folder.rmdir()


def _locks() -> Path:
    return cache_folder() / ".in-use"


@contextmanager
def _gate() -> Iterator[None]:
    """Hold the lock for acquiring and checking leases."""
    folder = _locks()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "gate.lock", thread_local=False):
            yield
    except OSError as error:
        hint = "make it writable, or move it with SGLORA_HOME"
        raise unwritable(f"cannot write into the cache {cache_folder()}", error, hint) from error


@contextmanager
def lease() -> Iterator[None]:
    """Hold a lease, which prevents cleaning of the cache. The operating system releases it if the process dies.

    Also works as a decorator. Many processes may hold leases at the same time. It does nothing in a read-only cache.
    """
    lock = FileLock(_locks() / f"{uuid.uuid4().hex}.lock", thread_local=False)
    with suppress(Unavailable), _gate():
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):
            Path(lock.lock_file).unlink()


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the gate while no process holds a lease. Raises Unavailable if one does."""
    with _gate():
        for path in _locks().glob("*.lock"):
            if path.name == "gate.lock":
                continue
            try:
                with FileLock(path, timeout=0):
                    pass
            except Timeout:
                raise Unavailable(
                    "another sglora process is using the cache", "wait until it is finished, or stop it"
                ) from None
            with suppress(OSError):
                path.unlink()
        yield


def age(text: str) -> float:
    """Parse an age such as `30d`, `12h`, `45m` or `10s` into seconds. Raises UsageError.

    >>> age("30d"), age("1.5h")
    (2592000.0, 5400.0)
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    try:
        seconds = float(text[:-1]) * units[text[-1:]]
    except (KeyError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(
            f"an age must be a number with s, m, h, d or w, got {text!r}", "pass for example --older-than 30d"
        )
    return seconds
