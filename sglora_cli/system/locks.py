"""Locks: one process at a time writes a file or changes a pack. Others wait or are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sglora_cli.errors import Unavailable, UsageError, unwritable
from sglora_cli.files.atomic import draft_targets, drop_drafts, recover
from sglora_cli.files.attempts import needs_lock
from sglora_cli.files.hashes import data_hash
from sglora_cli.files.names import short_name
from sglora_cli.files.untrusted import NAME_LIMIT
from sglora_cli.system.paths import built_folder, cache_folder
from sglora_cli.system.progress import remark

_NAME_BYTES = NAME_LIMIT - len("..lock")


def lock_file(path: Path) -> Path:
    """Return the lock file of a file or folder, hidden beside it. Raises UsageError for a path without a name."""
    if not path.name:
        raise UsageError(f"{path} is a folder", "name a file")
    return path.with_name(f".{short_name(path.name, _NAME_BYTES)}.lock")


def unused_locks(folder: Path) -> list[Path]:
    """Return the lock files in a folder that belong to no file or folder there."""
    names = list(folder.iterdir())
    used = {lock_file(path) for path in names}
    return [path for path in names if path.name.startswith(".") and path.suffix == ".lock" and path not in used]


@contextmanager
def locked(path: Path, wait: bool = True, place: Path | None = None) -> Iterator[None]:
    """Hold the lock of a file or folder to be written. The operating system releases it if the process dies.

    place: the lock file, by default `lock_file(path)`. Without `wait`, raises Unavailable if
    another process holds it. Does nothing in a named attempt at making `path`, see `files/attempts.py`.
    """
    if not needs_lock(path):
        yield
        return
    lock = FileLock(place or lock_file(path), thread_local=False)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0.5 if wait else 0)
        except Timeout:
            if not wait:
                raise Unavailable(
                    f"another process is writing {path}", "wait for it, or choose another file with -o"
                ) from None
            remark(f"another process is making {path}: waiting for it")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError):
            raise unwritable(f"cannot lock {path}", error) from error
        raise Unavailable(f"cannot lock {path}: {error}", "move the user folders with SGLORA_HOME") from error
    try:
        drop_drafts(path, locked=True)
        yield
    finally:
        lock.release()


@contextmanager
def pack_lock(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a pack's folder to write, replace or remove it. Recovers the state after a killed process."""
    with locked(folder, wait, _pack_lock_file(folder)):
        recover(folder)
        if folder.parent == built_folder():
            _drop_drafts_of_others(folder)
        yield


def _pack_lock_file(folder: Path) -> Path:
    key = data_hash(str(folder.resolve()).encode())[:32]
    return cache_folder() / "locks" / f"{key}.lock"


def _drop_drafts_of_others(folder: Path) -> None:
    """Remove the drafts of the other packs that no process is writing."""
    for other in draft_targets(folder.parent):
        if other != folder:
            with suppress(Unavailable), locked(other, wait=False, place=_pack_lock_file(other)):
                pass
