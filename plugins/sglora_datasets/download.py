"""Files from the network, over the standard library: resumed by bytes, checked, whole or absent.

What has arrived lies in NAME.part beside the target; the next try asks the server for the rest. A server that sends
everything again is listened to from the start. Only a file that passes its check gets its name.

For the data sets that torchvision knows, its classes say where the archives are and which checksums they have. Getting,
checking and unpacking them is done here, so that an interrupted fetch resumes.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import ssl
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sglora_cli.api import BadFile, Unavailable, cache_folder, content_hash, locked, offline, progress, put_file

from .archive import unpacked

CHUNK = 1 << 20
ARCHIVES = (".zip", ".tar.gz", ".tgz")
TRIES = 5
"""Connections in a row that bring nothing before the user is asked to try again."""
PAUSE_SECONDS = 2.0
_TIMEOUT = 60.0


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded."""

    url: str
    md5: str = ""
    """As its publisher gives it; "" if it gives none: then a zip's own checksums are what is checked."""

    @property
    def name(self) -> str:
        return urlsplit(self.url).path.rpartition("/")[2]


def downloaded(remote: Remote, folder: Path, note: Callable[[str], None]) -> Path:
    """The file in a folder, downloaded if it is not there whole.

    Raises Unavailable if it does not arrive or there is no room (what came is kept), BadFile if it is not what
    its publisher published (it is removed).
    """
    target = folder / remote.name
    if target.is_file():
        note(f"{target} is there: checking it")
        check(remote, target)
        return target
    if offline():
        raise Unavailable(f"{remote.url} is not downloaded: SGLORA_OFFLINE is set", f"unset it, or put it at {target}")
    part = target.with_name(f"{target.name}.part")
    lock = cache_folder() / "locks" / f"{content_hash(str(target.resolve()))[:32]}.lock"
    note(f"downloading {remote.url} into {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(target, place=lock):  # two processes would both add to the part
            if not target.is_file():
                _persist(remote, part, note)
                check(remote, part, remote.name)
                put_file(part, target)
    except OSError as error:
        raise Unavailable(f"cannot write {part}: {error.strerror}", "make room, then run it again to go on") from error
    return target


def _persist(remote: Remote, part: Path, note: Callable[[str], None]) -> None:
    """Try until the file is whole; TRIES times without a byte more are enough."""
    most, tries = _size(part), 0
    while reason := _tried(remote, part, note):
        tries, most = (0, _size(part)) if _size(part) > most else (tries + 1, most)
        if tries >= TRIES:
            raise Unavailable(
                f"{remote.url} could not be downloaded: {reason}",
                f"run it again: it goes on from byte {_size(part)}",
            )
        note(f"{remote.name}: {reason}; trying again from byte {_size(part)}")
        time.sleep(PAUSE_SECONDS * tries)


def check(remote: Remote, path: Path, name: str = "") -> None:
    """Raises BadFile, and removes the file, if it is not what was published."""
    try:
        if remote.md5:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
            if digest != remote.md5:
                raise BadFile(
                    f"{name or path} has the MD5 checksum {digest}, its publisher names {remote.md5}",
                    "it was removed: run it again",
                )
        elif remote.name.endswith(".zip"):
            _check_zip(path, name or str(path))
    except BadFile:
        path.unlink(missing_ok=True)
        raise


def _check_zip(path: Path, name: str) -> None:
    """Reads all of it: each entry carries the checksum of its content."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OSError) as error:
        raise BadFile(f"{name} is not a whole ZIP archive: {error}", "it was removed: run it again") from None
    if bad is not None:
        raise BadFile(f"{name}: the checksum of entry {bad!r} is wrong", "it was removed: run it again")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tried(remote: Remote, part: Path, note: Callable[[str], None]) -> str:
    """Ask for the rest of a file once, and add it to the part. Why it is not whole then; "" if it is."""
    start = _size(part)
    headers = {"User-Agent": "sglora", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with urllib.request.urlopen(urllib.request.Request(remote.url, headers=headers), timeout=_TIMEOUT) as reply:
            if start and not _continues(reply, start):
                note(f"{remote.name}: the server sends all of it again")
                start = 0
            return _received(reply, part, start, remote.name)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send, or the part is too long
            return _after_the_end(error, part, start)
        if error.code < 500 and error.code not in (408, 429):
            raise Unavailable(
                f"{remote.url} could not be downloaded: {error.code} {error.reason}", "see whether it has moved"
            ) from None
        return f"{error.code} {error.reason}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        return str(error) or type(error).__name__


def _continues(reply: Any, start: int) -> bool:
    """Whether the reply is the rest from byte `start`, and not the whole file."""
    return reply.status == 206 and str(reply.headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def _after_the_end(error: urllib.error.HTTPError, part: Path, start: int) -> str:
    if str(error.headers.get("Content-Range", "")) == f"bytes */{start}":
        return ""
    part.unlink()
    return "what had arrived is longer than the file"


def _received(reply: Any, part: Path, start: int, name: str) -> str:
    length = reply.headers.get("Content-Length", "")
    left = int(length) if length.isdecimal() and len(length) < 20 else None
    if left is not None and left > (free := shutil.disk_usage(part.parent).free):
        raise Unavailable(f"{name} needs {left} bytes, {part.parent} has {free} left", "make room there")
    with part.open("ab" if start else "wb") as file:
        if left is None:
            shutil.copyfileobj(reply, file, CHUNK)
            return ""
        got = 0
        for _ in progress(range(-(-left // CHUNK)), f"{name}, MiB"):
            chunk = reply.read(min(CHUNK, left - got))
            got += len(chunk)
            file.write(chunk)
            if not chunk:
                break
    return "" if got == left else f"the connection broke off {left - got} bytes before the end"


def fetched(
    kind: str,
    data: Path,
    folder: str,
    note: Callable[[str], None],
    parts: tuple[str, ...] = (),
    captions: bool = True,
) -> Path:
    """Download torchvision's data set `kind` into a folder below `data`; returns that folder.

    captions: whether its user has to write them. Nothing is done if all `parts` are there; a file that is there is
    not downloaded again, nor an archive that was unpacked. Raises Unavailable, BadFile.
    """
    root = data / folder
    if parts and all((root / part).exists() for part in parts):
        note(f"{root} is there")
        return root
    remotes = remotes_of(kind)
    within = data if getattr(_datasets(), kind).__dict__.get("base_folder") == folder else root  # its archive brings it
    for remote in remotes:
        fetch_one(remote, root, within, note)
    if captions:
        note("captions.jsonl is not part of it: `sglora data caption` writes it")
    return root


def fetch_one(
    remote: Remote,
    root: Path,
    within: Path,
    note: Callable[[str], None],
    wanted: Callable[[str], bool] = lambda name: True,
) -> None:
    """Download a file into root; an archive is unpacked into `within` and leaves a mark in its place."""
    mark = root / f".{remote.name}.unpacked"
    if mark.exists():
        note(f"{remote.name} was unpacked before")
        return
    path = downloaded(remote, root, note)
    if path.name.endswith(ARCHIVES):
        note(f"unpacking {path.name}")
        unpacked(path, within, wanted)
        mark.touch()
        path.unlink()


def remotes_of(kind: str) -> list[Remote]:
    """What torchvision's class publishes. Raises Unavailable if this torchvision says it in another way."""
    source: Any = getattr(_datasets(), kind, None)
    try:
        if hasattr(source, "_RESOURCES"):
            return [Remote(url, md5) for url, md5 in source._RESOURCES]
        if hasattr(source, "_file_dict"):
            return [Remote(source._download_url_prefix + name, md5) for name, md5 in source._file_dict.values()]
        return [Remote(source.url, source.tgz_md5)]
    except (AttributeError, TypeError, ValueError):
        raise Unavailable(f"this torchvision does not say where {kind} is", "pip install -U torchvision") from None


def _datasets() -> Any:
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: one built for another torch
        raise Unavailable(f"torchvision cannot be used: {error}", "pip install torchvision") from None
    return datasets
