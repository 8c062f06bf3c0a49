"""Files and folders that are whole or absent: drafts beside the target, synced to the disk, then renamed.

A draft is locked while the process that writes it lives, and the operating system releases the lock when it dies. The
next process that writes the same target can therefore tell a stale draft from one in use, and removes it. Without
`fcntl` (Windows) nobody can remove an open file, so draft files are simply removed; stale draft folders stay.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from sglora_cli.errors import Unavailable, UsageError, unwritable
from sglora_cli.files.names import short_name

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

WINDOWS = os.name == "nt"
_RANDOM = r"[a-z0-9_]{8}\.draft"
_NAME_BYTES = 200
"""Of a target's name in that of its draft, which has more parts."""
_SYNC_ALL_FROM = 1000
"""Files; from so many on, asking for each costs more than asking once for all of the machine."""


@contextmanager
def writing(path: Path, put: Callable[[Path, Path], None] | None = None) -> Iterator[BinaryIO]:
    """A file that is whole or absent: a draft beside the target, then one rename, or what `put` does instead."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_drafts(path)
        handle, draft = _new_file(path)
    except OSError as error:
        raise unwritable(f"cannot write {path}", error) from error
    lock = os.dup(handle) if fcntl else None  # held beyond the file's closing, which Windows wants before it renames
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
    finally:
        if lock is not None:
            os.close(lock)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A folder to fill and then move; gone if something fails."""
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        drop_drafts(beside)
        handle, folder = _new_folder(beside)
    except OSError as error:
        raise unwritable(f"cannot write beside {beside}", error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy files into another folder, without their permissions: copies from a read-only place can be changed."""
    try:
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
    except OSError as error:
        raise unwritable(f"cannot copy {source} to {target.parent}", error) from error


def link_files(source: Path, target: Path, names: Iterable[str]) -> list[str]:
    """Give files of a folder a second name in another one; returns those that had to be copied instead.

    Both names are of one file, so neither folder's may be written in place. Everything here that writes a file gives
    its name to a new one.
    """
    copied = []
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, target / name)
        except OSError:  # a file system without them, or too many names of one file
            copied.append(name)
    copy_files(source, target, copied)
    return copied


def put_folder(folder: Path, target: Path) -> None:
    """Move a finished folder to its place.

    Where the operating system can exchange two names (Linux), the old folder leaves in the same moment. Elsewhere it
    leaves just before, and `recover` brings it back if the process is killed in between. Raises Unavailable.
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
    """Move a finished file to its place, readable for whom the umask allows."""
    try:
        _sync(draft)
        os.chmod(draft, 0o666 & ~_umask())
        os.replace(draft, target)
        sync_folder(target.parent)
    except OSError as error:
        raise unwritable(f"cannot put {target.name!r} into {target.parent}", error) from error


def drop_folder(folder: Path) -> None:
    """Remove a folder. It leaves its name first and is emptied then: nobody meets half of it."""
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


def drop_drafts(target: Path) -> None:
    """Remove what killed processes left of a file or folder that they were writing."""
    _sweep(target.parent, re.escape(_prefix(target)) + _RANDOM)


def drop_all_drafts(folder: Path) -> None:
    """Remove what killed processes left in a folder of our own, whatever they were writing."""
    _sweep(folder, r"\..+\." + _RANDOM)


def _sweep(folder: Path, names: str) -> None:
    left = re.compile(names)
    with suppress(OSError):
        for name in [name for name in os.listdir(folder) if left.fullmatch(name)]:
            with suppress(OSError):
                _drop_abandoned(folder / name)


def _drop_abandoned(draft: Path) -> None:
    if fcntl is None:
        if draft.is_file():
            draft.unlink()
        return
    handle = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its maker lives
        erase(draft)
    finally:
        os.close(handle)


def _new_file(target: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=".draft")
        if _claimed(handle, name):
            return handle, Path(name)
        os.close(handle)


def _new_folder(target: Path) -> tuple[int | None, Path]:
    while True:
        name = tempfile.mkdtemp(dir=target.parent, prefix=_prefix(target), suffix=".draft")
        if fcntl is None:
            return None, Path(name)
        with suppress(FileNotFoundError):  # swept before it was locked
            handle = os.open(name, os.O_RDONLY)
            if _claimed(handle, name):
                return handle, Path(name)
            os.close(handle)


def _claimed(handle: int, name: str) -> bool:
    """Lock a new draft. False if another process has just removed it as stale."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nobody can sweep there either
        return True
    return os.path.exists(name)


def _draft_name(target: Path) -> Path:
    """A name that is swept if we are killed before it is empty."""
    return target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}.draft")


def _prefix(target: Path) -> str:
    """What the names of a target's drafts begin with."""
    return f".{short_name(target.name, _NAME_BYTES)}."


def _discard(path: Path, target: Path) -> None:
    """Remove an old target, if it is there. It gets a draft's name first, so that half of it never comes back."""
    with suppress(OSError):
        os.replace(path, gone := _draft_name(target))
        erase(gone)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


@cache
def _rename() -> Any:
    """Linux's renameat2, which no module of Python offers."""
    return getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None


def exchanged(one: Path, other: Path) -> bool:
    """Let two paths change their names in one step. False where the system or the file system cannot."""
    at_cwd, rename_exchange = -100, 2
    call = _rename()
    return call is not None and call(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), rename_exchange) == 0


def sync_tree(folder: Path) -> None:
    """All of a folder survives a power cut from now on."""
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
    """The names in a folder survive a power cut from now on."""
    if WINDOWS:  # folders cannot be opened there
        return
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has no such thing
            raise


def erase(path: Path) -> None:
    """Remove what is there, if anything; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_free(path: Path, force: bool, folder: bool = False) -> None:
    """Raises UsageError if a file (or folder) cannot be put at `path`, or if it would replace one without `force`."""
    if path.exists() and path.is_dir() != folder:
        raise UsageError(f"{path} is a {'folder' if path.is_dir() else 'file'}", "choose another name")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", "choose another name, or pass --force to replace it")


def write_bytes(path: Path, data: bytes) -> None:
    """Write all of it or nothing."""
    with writing(path) as file:
        file.write(data)
