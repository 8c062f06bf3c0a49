"""One process at a time makes a file; the others wait, and find it made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sglora_cli.errors import Unavailable
from sglora_cli.files import drop_drafts
from sglora_cli.progressing import remark


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file that is to be made. The system takes it from a process that dies."""
    lock = FileLock(path.with_name(f"{path.name}.lock"), thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            remark(f"another process is making {path}: waiting for it")
            lock.acquire()
    except OSError as error:
        raise Unavailable(f"cannot lock {path}: {error.strerror or error}", "is its folder writable?") from error
    try:
        drop_drafts(path)
        yield
    finally:
        lock.release()
