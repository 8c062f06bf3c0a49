"""What stops a program from outside: signals, and a machine that fails under it. Nothing finished is lost by them."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sglora_cli.drafts import unwritable
from sglora_cli.errors import SgloraError, Unavailable

GO_ON = "finished steps are kept, and the same command goes on after them"
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE}


class Terminated(BaseException):
    """A signal asks the program to end: unlike the signal's own way, drafts are removed on the way out.

    Neither KeyboardInterrupt nor SystemExit: click and the loading of plugins have their own ideas of these.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated in this block, with 128 + their number as exit code."""
    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = [number for number in _SIGNALS if before[number] is signal.SIG_DFL]  # nohup's SIGHUP stays ignored
    for number in ours:
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _terminate(number: int, frame: Any) -> None:
    raise Terminated(128 + number)


def check_working_folder() -> None:
    """Raises Unavailable if it was removed: no relative path means anything then."""
    try:
        os.getcwd()
    except OSError:
        raise Unavailable("the working folder does not exist any more", "change into another one with cd") from None


def failure_of(error: BaseException) -> SgloraError | None:
    """The user's error that a failing machine means: a full disk, no permission, no memory, a lost GPU. None for
    anything else: that is a bug."""
    if isinstance(error, OSError):
        where = f"cannot use {os.fsdecode(error.filename)}" if error.filename else "the system refuses"
        return unwritable(where, error) if error.errno in _OURS else None
    if not isinstance(error, (RuntimeError, MemoryError)):
        return None
    said = (str(error) or "no memory is left").strip().split("\n")[0][:200]
    kind = f"{type(error).__name__} {said}".lower()
    if isinstance(error, MemoryError) or "outofmemory" in kind or "out of memory" in kind or "allocate memory" in kind:
        return Unavailable(
            f"there is not enough memory: {said}",
            f"end other programs that use it, pass --device cpu, or build with smaller tasks_at_once; {GO_ON}",
        )
    if "acceleratorerror" in kind or "cuda" in kind or "hip error" in kind or "mps backend" in kind:
        return Unavailable(f"the device failed: {said}", f"run it again, or pass --device cpu; {GO_ON}")
    return None
