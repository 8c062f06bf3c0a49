"""Attempts at making a file: each has its own unfinished files, so that two attempts never write into the same one.

A step of a job may be attempted on another machine after its first machine seemed to fail. The first attempt may still
be running, for example behind a broken network connection. Locks do not help there, because a shared disk may not
support them, and because the lock of a machine that is gone may never be released.

An unfinished file X.safetensors has a draft X.safetensors.part and a checkpoint X.checkpoint. Those of a named attempt
are X.ATTEMPT.safetensors.part and X.ATTEMPT.checkpoint.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

_current: ContextVar[tuple[Path, str]] = ContextVar("attempt")
_DRAFT, _CHECKPOINT, _COPY = ".safetensors.part", ".checkpoint", ".copy"


@contextmanager
def attempt(target: Path, name: str) -> Iterator[None]:
    """Make the file `target` inside the block, in an attempt with this name.

    The attempt starts from a copy of the newest checkpoint of the others. The unfinished files of all attempts are
    removed if the block ends without an error.
    name: "" for this machine's own attempt, which relies on the lock of the file. Named attempts ignore this lock.
    """
    token = _current.set((target, name))
    try:
        _inherit(target)
        yield
        for path in _unfinished(target):
            path.unlink(missing_ok=True)
    finally:
        _current.reset(token)


def own_path(path: Path) -> Path:
    """Return the path of an unfinished file in the current attempt."""
    target, name = _current.get((Path(), ""))
    stem = path.name.partition(".")[0]
    if not name or path.parent != target.parent or stem != target.name.partition(".")[0]:
        return path
    return path.with_name(f"{stem}.{name}{path.name.removeprefix(stem)}")


def needs_lock(path: Path) -> bool:
    """Return whether a file must be locked while it is made. False in a named attempt at making it."""
    target, name = _current.get((Path(), ""))
    return not (name and path == target)


def _inherit(target: Path) -> None:
    if any(own_path(target.with_suffix(ending)).exists() for ending in (_DRAFT, _CHECKPOINT)):
        return
    found = [path for path in _unfinished(target) if path.name.endswith(_CHECKPOINT)]
    for checkpoint in sorted(found, key=_age)[:1]:
        draft = checkpoint.with_name(checkpoint.name.removesuffix(_CHECKPOINT) + _DRAFT)
        with suppress(OSError):  # the other attempt has just finished, or another process inherits from it
            # The checkpoint first: the draft then has all rows that the checkpoint refers to, and perhaps newer ones.
            _copy(checkpoint, own_path(target.with_suffix(_CHECKPOINT)))
            if draft.exists():
                _copy(draft, own_path(target.with_suffix(_DRAFT)))


def _copy(path: Path, to: Path) -> None:
    """Copy a file to a path that does not exist. Raises OSError."""
    partial = to.with_name(f"{to.name}.{secrets.token_hex(4)}{_COPY}")
    try:
        shutil.copyfile(path, partial)
        os.link(partial, to)  # unlike a rename, it fails if another process was faster
    finally:
        partial.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Return a number that is smaller for newer files."""
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def _unfinished(target: Path) -> list[Path]:
    """Return the unfinished files of all attempts at making a file."""
    stem = target.name.partition(".")[0]
    # Not `glob`, which takes several times as long in a folder of thousands of files.
    names = os.listdir(target.parent) if target.parent.is_dir() else []
    ours = (n for n in names if n.startswith(f"{stem}.") and n.endswith((_DRAFT, _CHECKPOINT, _COPY)))
    return [target.parent / name for name in ours]
