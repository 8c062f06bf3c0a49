"""Windows' rules for files, enforced on another system.

Python announces every change of a file by an audit event before it makes it. `WindowsDisk` listens and raises what
Windows would raise:

* A file that is open or mapped can be neither renamed nor replaced nor removed, and neither can its folder.
* A folder cannot be opened.
* Names may not contain certain characters, end in a dot or a blank, or be the name of a device.
* A file that is open for reading only cannot be synced. There is no flock, and links need a privilege.

Code that is not Python's (SQLite, safetensors) raises no events. Locks are those of the system that runs the tests.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sglora_cli.files import atomic

fcntl = pytest.importorskip("fcntl", reason="the simulation runs on Unix")
_BAD_NAME = re.compile(
    r'.*[<>:"|?*\x00-\x1f].*|.*[. ]|(con|prn|aux|nul|(com|lpt)[0-9])(\..*)?', re.IGNORECASE | re.DOTALL
)


class WindowsDisk:
    """The rules, below one folder. `refused` has every refusal."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self.active = True
        self.refused: list[str] = []

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See sys.addaudithook."""
        check: Callable[..., None] | None = self._CHECKS.get(event)
        if self.active and check and not _is_filelock():
            check(self, *arguments)

    def _open(self, path: object, mode: object, flags: object) -> None:
        if place := self._below(path):
            if os.path.isdir(place):
                self._refuse(errno.EACCES, place, "open a folder")
            if isinstance(flags, int) and flags & os.O_CREAT:
                self._name(place)

    def _rename(self, source: object, target: object, *_: object) -> None:
        for path in (source, target):
            if place := self._below(path):
                self._unused(place)
        if place := self._below(target):
            self._name(place)

    def _remove(self, path: object, *_: object) -> None:
        if place := self._below(path):
            self._unused(place)

    def _make(self, path: object, *_: object) -> None:
        if place := self._below(path):
            self._name(place)

    def _link(self, _: object, target: object, *__: object) -> None:
        if place := self._below(target):
            self._refuse(errno.EPERM, place, "make a symbolic link")

    _CHECKS: ClassVar = {
        "open": _open,
        "os.rename": _rename,
        "os.remove": _remove,
        "os.rmdir": _remove,
        "os.mkdir": _make,
        "os.symlink": _link,
    }

    def _below(self, path: object) -> str:
        if not isinstance(path, str | bytes | os.PathLike):
            return ""
        place = os.path.abspath(os.fsdecode(path))
        return place if place.startswith(self._root + os.sep) else ""

    def _name(self, place: str) -> None:
        if any(_BAD_NAME.fullmatch(part) for part in place.removeprefix(self._root + os.sep).split(os.sep)):
            self._refuse(errno.EINVAL, place, "this name")

    def _unused(self, place: str) -> None:
        used = [one for one in _in_use() if one == place or one.startswith(place + os.sep)]
        if used:
            self._refuse(errno.EACCES, place, f"change a file in use ({used[0].removeprefix(place)})")

    def _refuse(self, number: int, place: str, what: str) -> None:
        self.refused.append(f"{what}: {place}")
        raise OSError(number, f"Windows: {what}", place)


def _is_filelock() -> bool:
    """Whether the package filelock does it, which has code of its own for Windows."""
    frame = sys._getframe(2)
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_globals.get("__name__", "").startswith("filelock"):
            return True
    return False


def _in_use() -> set[str]:
    """Files that this process has open or mapped."""
    files = set()
    for handle in os.listdir("/proc/self/fd"):
        try:
            files.add(os.readlink(f"/proc/self/fd/{handle}"))
        except OSError:  # the one that listed them
            continue
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        files.update(line.split(maxsplit=5)[5].rstrip("\n") for line in maps if line.count("/"))
    return files


_DISKS: list[WindowsDisk] = []
"""The one that listens, after those of earlier tests."""


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    _DISKS[-1].hear(event, arguments)


def _install(disk: WindowsDisk) -> None:
    """Let a disk listen. Python keeps a hook until the process ends, so there is one for all of them."""
    _DISKS.append(disk)
    if len(_DISKS) == 1:
        sys.addaudithook(_hear)


@pytest.fixture
def windows(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[WindowsDisk]:
    """The folders of the tests are on a disk of Windows."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("the simulation asks /proc which files are open")
    disk = WindowsDisk(tmp_path_factory.getbasetemp())
    _install(disk)
    sync = os.fsync

    def sync_written(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            disk._refuse(errno.EBADF, str(handle), "sync a file that is open for reading")
        sync(handle)

    monkeypatch.setattr(os, "fsync", sync_written)
    monkeypatch.setattr(atomic, "WINDOWS", True)
    monkeypatch.setattr(atomic, "_rename", lambda: None)
    monkeypatch.setattr(shutil, "_use_fd_functions", False)
    monkeypatch.delattr(os, "sync")
    yield disk
    disk.active = False
