"""Write files and folders atomically: drafts beside the target, synced to disk, then renamed.

A killed process leaves its draft. The next process that writes the same target removes a draft that has not changed for
an hour. A process that holds the target's lock (`system/locks.py`) removes every draft, because no other process may
write the target meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from sglora_cli.errors import Unavailable, UsageError, unwritable
from sglora_cli.files.names import short_name

WINDOWS = os.name == "nt"
_RANDOM = r"[a-z0-9_]{8}\.draft"
_STALE_SECONDS = 3600.0
"""Time without a change after which nobody is expected to write a draft any more."""
_NAME_BYTES = 200
"""Bytes of the target's name in the name of its draft, which has further parts."""
_SYNC_ALL_FROM = 1000
"""Number of files from which one sync of the whole machine is cheaper than one per file."""


@contextmanager
def writing(path: Path, put: Callable[[Path, Path], None] | None = None) -> Iterator[BinaryIO]:
    """Open a draft beside the target, and rename it to the target at the end of the block, or call `put` instead.

    Links are followed. Raises UsageError for a device or a pipe, which a rename would replace, and Unavailable.
    """
    check_not_special(path)
    path = followed(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_drafts(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=".draft")
        draft = Path(name)
    except OSError as error:
        raise unwritable(f"cannot write {path}", error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o666 & ~_umask())
        (put or os.replace)(draft, path)
        sync_folder(path.parent)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(f"cannot write {path}", error) from error
        raise


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Create a temporary folder to fill and move. It is removed if the block fails."""
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        drop_drafts(beside)
        folder = Path(tempfile.mkdtemp(dir=beside.parent, prefix=_prefix(beside), suffix=".draft"))
    except OSError as error:
        raise unwritable(f"cannot write beside {beside}", error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy files into another folder without their permissions, so that copies of read-only files can be changed."""
    try:
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
    except OSError as error:
        raise unwritable(f"cannot copy {source} to {target.parent}", error) from error


def link_files(source: Path, target: Path, names: Iterable[str]) -> list[str]:
    """Hard-link files of a folder into another folder. Returns the names that had to be copied instead.

    Both names refer to one file, so neither may be written in place. All functions here that write a file create a new
    one and rename it.
    """
    copied = []
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, target / name)
        except OSError:  # a file system without hard links, or with too many links to one file
            copied.append(name)
    copy_files(source, target, copied)
    return copied


def put_folder(folder: Path, target: Path) -> None:
    """Move a finished folder to its place.

    If the operating system can exchange two names (Linux), the old folder is replaced in one step. Elsewhere it is
    moved away first, and `recover` restores it if the process is killed in between. Raises Unavailable.
    """
    old = _old(target)
    try:
        sync_tree(folder)
        os.chmod(folder, 0o777 & ~_umask())  # a scratch folder is for its owner only
        if not os.path.lexists(target):
            os.replace(folder, target)
        elif exchanged(folder, target):
            _discard(folder, target)
        else:
            _discard(old, target)
            os.replace(target, old)
            try:
                os.replace(folder, target)
            except OSError:
                os.replace(old, target)
                raise
            _discard(old, target)
        sync_folder(target.parent)
    except OSError as error:
        raise unwritable(f"cannot put {target.name!r} into {target.parent}", error) from error


def recover(target: Path) -> None:
    """Undo or complete a `put_folder` that a kill interrupted. The caller must hold the target's lock."""
    old = _old(target)
    with suppress(OSError):
        if os.path.lexists(old) and not os.path.lexists(target):
            os.replace(old, target)
        _discard(old, target)


def put_file(draft: Path, target: Path) -> None:
    """Move a finished file to its place, with the permissions of the umask. Links are followed.

    Raises UsageError for a device or a pipe, and Unavailable.
    """
    check_not_special(target)
    if target.is_symlink():  # it may lead to another disk, where a file cannot be moved in one step
        with draft.open("rb") as source, writing(target) as file:
            shutil.copyfileobj(source, file)
        draft.unlink()
        return
    try:
        _sync(draft)
        os.chmod(draft, 0o666 & ~_umask())
        os.replace(draft, target)
        sync_folder(target.parent)
    except OSError as error:
        raise unwritable(f"cannot put {target.name!r} into {target.parent}", error) from error


def drop_folder(folder: Path) -> None:
    """Remove a folder. It is renamed first and then emptied, so that no process sees a part of it."""
    try:
        recover(folder)
        os.replace(folder, gone := _draft_name(folder))
        sync_folder(folder.parent)
    except OSError as error:
        raise Unavailable(
            f"cannot remove {folder}: {error.strerror}", "may you write to the folder it is in?"
        ) from error
    with suppress(OSError):  # another process may be sweeping it already
        erase(gone)


def drop_drafts(target: Path, locked: bool = False) -> None:
    """Remove the drafts that killed processes left of a file or folder.

    locked: whether the caller holds the target's lock, so that all of its drafts are stale. Otherwise those are removed
    that have not changed for an hour.
    """
    _sweep(target.parent, re.escape(_prefix(target)) + _RANDOM, 0.0 if locked else _STALE_SECONDS)


def drop_all_drafts(folder: Path) -> None:
    """Remove all drafts in a folder that belongs to sglora, if they have not changed for an hour."""
    _sweep(folder, r"\..+\." + _RANDOM, _STALE_SECONDS)


def draft_targets(folder: Path) -> list[Path]:
    """Return the files and folders that have drafts in a folder. A long name is shortened in its draft's name."""
    names = os.listdir(folder) if folder.is_dir() else []
    matches = [match for name in names if (match := re.fullmatch(r"\.(.+)\." + _RANDOM, name))]
    return sorted({folder / match[1] for match in matches})


def _sweep(folder: Path, names: str, least_seconds: float) -> None:
    left = re.compile(names)
    with suppress(OSError):
        for name in [name for name in os.listdir(folder) if left.fullmatch(name)]:
            with suppress(OSError):  # in use on Windows, or another process removes it
                draft = folder / name
                if _replaceable(draft.lstat().st_mode) and time.time() - _changed(draft) >= least_seconds:
                    erase(draft)


def _changed(path: Path) -> float:
    """Return the time of the last change of a file, or of anything in a folder. Raises OSError."""
    inside = path.rglob("*") if path.is_dir() else ()
    return max(one.lstat().st_mtime for one in (path, *inside))


def _draft_name(target: Path) -> Path:
    """Return the name of a draft, so that the next process removes it if this one is killed."""
    return target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}.draft")


def _prefix(target: Path) -> str:
    """Return the prefix of the names of a target's drafts."""
    return f".{short_name(target.name, _NAME_BYTES)}."


def _discard(path: Path, target: Path) -> None:
    """Remove an old target, if it exists. It is renamed to a draft first, so that a part of it is never restored."""
    with suppress(OSError):
        os.replace(path, gone := _draft_name(target))
        erase(gone)


def _old(target: Path) -> Path:
    return target.with_name(f".{short_name(target.name, _NAME_BYTES)}.old")


@cache
def _rename() -> Any:
    """Return Linux's renameat2, which Python does not expose."""
    return getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None


def exchanged(one: Path, other: Path) -> bool:
    """Exchange two paths in one step. Returns False if the system or the file system cannot."""
    at_cwd, rename_exchange = -100, 2
    call = _rename()
    return call is not None and call(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), rename_exchange) == 0


def sync_tree(folder: Path) -> None:
    """Sync a folder and its contents, so that they survive a power failure."""
    paths = list(folder.rglob("*"))
    if len(paths) >= _SYNC_ALL_FROM and hasattr(os, "sync"):
        os.sync()
        return
    for path in paths:
        if path.is_file() and not path.is_symlink():
            _sync(path)
    for path in [*paths, folder]:
        if path.is_dir() and not path.is_symlink():
            sync_folder(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder, so that they survive a power failure."""
    if WINDOWS:  # folders cannot be opened there
        return
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without this operation
            raise


def erase(path: Path) -> None:
    """Remove a file or folder, if it exists. Of a link, only the link is removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def followed(path: Path) -> Path:
    """Return where a result is written: the path, or where it leads if it is a link, which a rename would replace."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def check_not_special(path: Path) -> None:
    """Raise UsageError for a device, a pipe or a socket. A result would replace it instead of being written to it."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # creating it raises the proper error
        return
    if not _replaceable(mode):
        raise UsageError(f"{path} is a device, a pipe or a socket, not a file", "pass the name of a file")


def _replaceable(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def check_free(path: Path, force: bool, folder: bool = False) -> None:
    """Raise UsageError if a file (or folder) cannot be put at `path`, or would replace one without `force`."""
    check_not_special(path)
    if path.exists() and path.is_dir() != folder:
        raise UsageError(f"{path} is a {'folder' if path.is_dir() else 'file'}", "choose another name")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", "choose another name, or pass --force to replace it")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with writing(path) as file:
        file.write(data)
