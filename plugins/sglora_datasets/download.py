"""Download files with the standard library, resuming by bytes, with verification and atomic results.

Received bytes are in NAME.part beside the target, and the next attempt requests the rest. If a server sends the
complete file again, it is read from the start. Only a verified file gets its final name.
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

from sglora_cli.api import (
    Attempts,
    BadFile,
    Pace,
    Unavailable,
    cache_folder,
    content_hash,
    locked,
    offline,
    progress,
    put_file,
)

from .archive import unpacked_limit

CHUNK = 1 << 20
TRIES = 5
"""Connections in a row that bring too little before giving up."""
PAUSE_SECONDS = 2.0
_TIMEOUT = 60.0
_DIFFERENT, _MOST = 0.01, 0.1
"""Relative differences from the expected size: above the first a note is shown, above the second a larger file is
refused."""
_SLACK = 1 << 20
"""Bytes by which a file may exceed its expected size in any case."""


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded."""

    url: str
    md5: str = ""
    """The publisher's MD5, or "" if there is none. A ZIP is then verified with its internal checksums."""
    size: int | None = None
    """Expected bytes, from the server's Content-Length at the time of writing, or None."""

    @property
    def most(self) -> int | None:
        """The most bytes that are accepted, or None if the expected size is unknown."""
        return None if self.size is None else self.size + max(int(_MOST * self.size), _SLACK)

    @property
    def name(self) -> str:
        return urlsplit(self.url).path.rpartition("/")[2]


def downloaded(remote: Remote, folder: Path, note: Callable[[str], None]) -> Path:
    """Return the file in a folder, downloading it unless it is complete.

    Raises Unavailable if the download fails or there is no space (received bytes are kept), BadFile if it is not the
    published file (it is deleted).
    """
    target = folder / remote.name
    if target.is_file():
        note(f"{target} exists, checking it")
        check(remote, target)
        return target
    if offline():
        raise Unavailable(
            f"cannot download {remote.url}, because SGLORA_OFFLINE is set", f"unset it, or save the file as {target}"
        )
    part = part_of(target)
    lock = cache_folder() / "locks" / f"{content_hash(str(target.resolve()))[:32]}.lock"
    note(f"downloading {remote.url} into {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(target, place=lock):  # two processes would both append to the part
            if not target.is_file():
                _persist(remote, part, note)
                check(remote, part, remote.name)
                put_file(part, target)
    except OSError as error:
        raise Unavailable(
            f"cannot write {part}: {error.strerror}", "free some space, then run the command again to resume"
        ) from error
    return target


def part_of(target: Path) -> Path:
    """Return the path of the incomplete file."""
    return target.with_name(f"{target.name}.part")


def arrived(target: Path) -> int:
    """Return how many bytes of a file are present, complete or incomplete."""
    return _size(target) or _size(part_of(target))


def _persist(remote: Remote, part: Path, note: Callable[[str], None]) -> None:
    """Retry until the file is complete. Gives up after TRIES attempts that bring too little."""
    attempts, most = Attempts(TRIES, PAUSE_SECONDS), _size(part)
    while reason := _tried(remote, part, note):
        seconds = attempts.failed(_size(part) - most)
        most = max(most, _size(part))
        if seconds is None:
            raise Unavailable(
                f"{remote.url} could not be downloaded: {reason}",
                f"run the command again to resume from byte {_size(part)}",
            )
        note(f"{remote.name}: {reason}, retrying from byte {_size(part)}")
        time.sleep(seconds)


def check(remote: Remote, path: Path, name: str = "") -> None:
    """Raise BadFile and delete the file if it is not the published one."""
    try:
        if remote.md5:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
            if digest != remote.md5:
                raise BadFile(
                    f"{name or path} has the MD5 checksum {digest}, but the publisher's is {remote.md5}",
                    "it was deleted, run the command again",
                )
        elif remote.name.endswith(".zip"):
            _check_zip(path, name or str(path))
    except BadFile:
        path.unlink(missing_ok=True)
        raise


def _check_zip(path: Path, name: str) -> None:
    """Verify the checksums of all entries, which reads the complete file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > unpacked_limit(path):
                raise ValueError("it would unpack to far more data than expected")
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OSError) as error:
        raise BadFile(
            f"{name} is an incomplete or damaged ZIP archive: {error}", "it was deleted, run the command again"
        ) from None
    if bad is not None:
        raise BadFile(f"{name}: the checksum of entry {bad!r} is wrong", "it was deleted, run the command again")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tried(remote: Remote, part: Path, note: Callable[[str], None]) -> str:
    """Request the rest of a file once and append it. Returns why it is still incomplete, or ""."""
    start = _size(part)
    headers = {"User-Agent": "sglora", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with urllib.request.urlopen(urllib.request.Request(remote.url, headers=headers), timeout=_TIMEOUT) as reply:
            if start and not _continues(reply, start):
                note(f"{remote.name}: the server sends the complete file again")
                start = 0
            return _received(reply, part, start, remote, note)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send, or the part is too long
            return _after_the_end(error, part, start)
        if error.code < 500 and error.code not in (408, 429):
            raise Unavailable(
                f"{remote.url} could not be downloaded: {error.code} {error.reason}", "check whether it has moved"
            ) from None
        return f"{error.code} {error.reason}"
    except urllib.error.URLError as error:
        if why := _hopeless(remote, error.reason):
            raise Unavailable(f"{remote.url} could not be downloaded: {why}", _elsewhere(part)) from None
        return str(error.reason)
    except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        return str(error) or type(error).__name__


def _hopeless(remote: Remote, reason: object) -> str:
    """Return why retrying cannot help, or "" if it may help."""
    if isinstance(reason, socket.gaierror):
        address = urlsplit(remote.url)
        proxy = urllib.request.getproxies().get(address.scheme, "")
        if proxy and not urllib.request.proxy_bypass(address.netloc):
            return f"the name of the proxy {urlsplit(proxy).hostname or proxy} does not resolve"
        return f"the name {address.hostname} does not resolve"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is invalid: {reason.verify_message}"
    return ""


def _elsewhere(part: Path) -> str:
    kept = f" ({_size(part)} bytes are kept)" if _size(part) else ""
    target = part.with_name(part.name.removesuffix(".part"))
    return f"fix the network or proxy and run the command again, or download it elsewhere and copy it to {target}{kept}"


def _continues(reply: Any, start: int) -> bool:
    """Return whether the reply is the rest from byte `start` and not the complete file."""
    return reply.status == 206 and str(reply.headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def _after_the_end(error: urllib.error.HTTPError, part: Path, start: int) -> str:
    if str(error.headers.get("Content-Range", "")) == f"bytes */{start}":
        return ""
    part.unlink()
    return "the partial download is longer than the file"


def _received(reply: Any, part: Path, start: int, remote: Remote, note: Callable[[str], None]) -> str:
    length, name = reply.headers.get("Content-Length", ""), remote.name
    left = int(length) if length.isdecimal() and len(length) < 20 else None
    if left is not None and remote.size and abs(start + left - remote.size) > _DIFFERENT * remote.size:
        note(f"{name} has {start + left} bytes on the server, expected {remote.size}")
    if left is not None and left > (free := shutil.disk_usage(part.parent).free):
        raise Unavailable(f"{name} needs {left} bytes, but {part.parent} has {free} free", "free some space there")
    allowed = _allowed(remote, part, start, left)
    got = end = 0
    pace = Pace()
    with part.open("ab" if start else "wb") as file:
        for _ in progress(range(-(-allowed // CHUNK)), f"{name}, MiB"):
            end = min(end + CHUNK, allowed)
            while got < end and (piece := reply.read1(end - got)):
                file.write(piece)
                got += len(piece)
                pace.received(len(piece))
            if got < end:
                break
    if left is not None:
        return "" if got == left else f"the connection was lost {left - got} bytes before the end"
    if got == allowed and reply.read(1):
        raise _too_large(remote, part, f"more than {start + got} bytes")
    return ""


def _allowed(remote: Remote, part: Path, start: int, left: int | None) -> int:
    """Return how many bytes may still come. Raises Unavailable if they are too many or no limit is known."""
    if left is None and remote.most is None:
        raise Unavailable(f"the server of {remote.url} does not state the size of the file", _elsewhere(part))
    if remote.most is not None and start + (left or 0) > remote.most:
        raise _too_large(remote, part, f"{start + (left or 0)} bytes")
    return left if left is not None else (remote.most or 0) - start


def _too_large(remote: Remote, part: Path, sent: str) -> Unavailable:
    part.unlink(missing_ok=True)
    return Unavailable(
        f"{remote.name} has {sent} on the server, expected {remote.size}, so it is not the published file",
        f"the download was deleted. {_elsewhere(part)}",
    )
