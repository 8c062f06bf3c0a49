"""Files from the network, over the standard library: resumed by bytes, checked, whole or absent.

What has arrived lies in NAME.part beside the target; the next try asks the server for the rest. A server that sends
everything again is listened to from the start. Only a file that passes its check gets its name.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import socket
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

CHUNK = 1 << 20
TRIES = 5
"""Connections in a row that bring nothing before the user is asked to try again."""
PAUSE_SECONDS = 2.0
_TIMEOUT = 60.0
_DIFFERENT = 0.01
"""A size that differs from the known one by this share is said. Nothing else follows from it."""


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded."""

    url: str
    md5: str = ""
    """As its publisher gives it; "" if it gives none: then a zip's own checksums are what is checked."""
    size: int | None = None
    """Bytes, as the Content-Length of its publisher's server was; None if unknown. What the server says now counts."""

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
    part = part_of(target)
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


def part_of(target: Path) -> Path:
    """Where the bytes of a file lie that is not whole yet."""
    return target.with_name(f"{target.name}.part")


def arrived(target: Path) -> int:
    """Bytes of a file that are here, whole or in part."""
    return _size(target) or _size(part_of(target))


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
            return _received(reply, part, start, remote, note)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send, or the part is too long
            return _after_the_end(error, part, start)
        if error.code < 500 and error.code not in (408, 429):
            raise Unavailable(
                f"{remote.url} could not be downloaded: {error.code} {error.reason}", "see whether it has moved"
            ) from None
        return f"{error.code} {error.reason}"
    except urllib.error.URLError as error:
        if why := _hopeless(remote, error.reason):
            raise Unavailable(f"{remote.url} could not be downloaded: {why}", _elsewhere(part)) from None
        return str(error.reason)
    except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        return str(error) or type(error).__name__


def _hopeless(remote: Remote, reason: object) -> str:
    """Why another try a moment later cannot help; "" if it may."""
    if isinstance(reason, socket.gaierror):
        address = urlsplit(remote.url)
        proxy = urllib.request.getproxies().get(address.scheme, "")
        if proxy and not urllib.request.proxy_bypass(address.netloc):
            return f"the name of the proxy {urlsplit(proxy).hostname or proxy} does not resolve"
        return f"the name {address.hostname} does not resolve"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {reason.verify_message}"
    return ""


def _elsewhere(part: Path) -> str:
    kept = f"; {_size(part)} bytes are kept" if _size(part) else ""
    target = part.with_name(part.name.removesuffix(".part"))
    return f"mend the network or the proxy and run it again, or download it elsewhere and copy it to {target}{kept}"


def _continues(reply: Any, start: int) -> bool:
    """Whether the reply is the rest from byte `start`, and not the whole file."""
    return reply.status == 206 and str(reply.headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def _after_the_end(error: urllib.error.HTTPError, part: Path, start: int) -> str:
    if str(error.headers.get("Content-Range", "")) == f"bytes */{start}":
        return ""
    part.unlink()
    return "what had arrived is longer than the file"


def _received(reply: Any, part: Path, start: int, remote: Remote, note: Callable[[str], None]) -> str:
    length, name = reply.headers.get("Content-Length", ""), remote.name
    left = int(length) if length.isdecimal() and len(length) < 20 else None
    if left is not None and remote.size and abs(start + left - remote.size) > _DIFFERENT * remote.size:
        note(f"{name} has {start + left} bytes on the server, and had {remote.size} when this program was written")
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
