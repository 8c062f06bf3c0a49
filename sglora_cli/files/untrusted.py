"""What a stranger's file may not be: too large, nested without end, full of numbers and texts that nothing can hold.

Everything here is checked before anything is allocated for it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile

JSON_LIMIT = 64 << 20
"""Bytes of a JSON file, unless its reader says more: Python's values take some 25 times as much memory."""
TOML_LIMIT = 1 << 20
"""Bytes; the largest recipe of the paper has 5,000."""
TEXT_LIMIT = 1 << 30
"""Bytes of a file of lines: captions of all of COCO take 60 million."""
DEPTH_LIMIT = 100
"""Lists and tables within each other. What reads deeper ones may not be able to write them."""
NAME_LIMIT, PATH_LIMIT = 255, 1000
"""Bytes of one part of a file's name, and of all of it: what common file systems allow."""
_CHUNK = 1 << 20


def read_bytes(path: Path, limit: int) -> bytes:
    """All of a file, which may be a pipe. Raises BadFile if it cannot be read or has more than `limit` bytes."""
    try:
        with path.open("rb") as file:
            chunks, size = [], 0
            step = max(_CHUNK, min(os.fstat(file.fileno()).st_size, limit) + 1)  # read(limit) would take that at once
            while size <= limit and (chunk := file.read(step)):
                chunks.append(chunk)
                size += len(chunk)
    except FileNotFoundError:
        raise BadFile.missing(path) from None
    except ValueError:  # a NUL, or half a surrogate pair
        raise BadFile(f"{str(path)!r} is no file name") from None
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    if size > limit:
        raise BadFile(f"{path} has more than {limit} bytes", "is it the right file?")
    return b"".join(chunks)


def check_regular(path: Path, what: str = "") -> None:
    """Raises BadFile for a pipe, a socket or a device: who opens one may wait for ever. A missing file passes.

    what: of which kind the file should be, as "image ".
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # who opens it says what is wrong
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BadFile(
            f"{what}{path} is a pipe, a socket or a device, not a file", "write what it gives into a file, or remove it"
        )


def json_value(text: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value of a JSON text. Raises ValueError, which has a line number (`json.JSONDecodeError`) or is an oddity."""
    try:
        value = json.loads(text, object_hook=hook)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_limits(value, texts="\\ud" in text or "\\uD" in text)
    return value


def check_limits(value: Any, texts: bool) -> None:
    """Raises ValueError for a value too deep, a whole number of more than 64 bits, and, if `texts`, for a text with
    half a surrogate pair: UTF-8 cannot hold it, so it could be neither printed nor written."""
    level = [value]
    for _ in range(DEPTH_LIMIT):
        deeper: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                deeper += one.values()
                if texts:
                    deeper += one
            elif isinstance(one, list):
                deeper += one
            elif type(one) is int and not -(2**63) <= one < 2**64:
                raise ValueError(f"a number has {len(str(one))} digits")
            elif texts and type(one) is str and any("\ud800" <= c <= "\udfff" for c in one):
                raise ValueError(f"{one[:100]!a} has half a character")
        if not deeper:
            return
        level = deeper
    raise ValueError(f"nested more than {DEPTH_LIMIT} levels deep")


def name_fault(name: str) -> str:
    """Why a name below a folder can be no file's; "" if it may be one.

    >>> name_fault("images/pug.jpg"), name_fault("a" * 300)
    ('', 'has a part of 300 bytes, more than a file system allows')
    """
    try:
        sizes = [len(part.encode()) for part in name.split("/")]
    except UnicodeEncodeError:
        return "is no text"
    if "\0" in name:
        return "has a NUL"
    if max(sizes) > NAME_LIMIT:
        return f"has a part of {max(sizes)} bytes, more than a file system allows"
    total = sum(sizes) + len(sizes) - 1
    return f"has {total} bytes, more than a file system allows" if total > PATH_LIMIT else ""


def entry_fault(name: str, mode: int = 0, whole: str = "archive") -> str:
    """Why an entry of an archive may not be unpacked: only plain files with a name below a folder may. "" if it may.

    mode: the entry's kind and permissions as Unix has them, 0 where the archive does not say.
    whole: what the answer calls the archive.

    >>> entry_fault("images/pug.jpg"), entry_fault("../pug.jpg")
    ('', 'is a folder, or its name leads out of the archive')
    """
    if not name.isprintable() or "\\" in name or ":" in name:
        return "has a backslash, a colon or a control character in its name"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return f"is a folder, or its name leads out of the {whole}"
    if fault := name_fault(name):
        return f"has a name that {fault}"
    return "" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "is a link, a folder or a device, not a file"


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`; BadFile when it would lead outside."""
    if fault := name_fault(name):
        raise BadFile(f"{name[:100]!r} is no file name: it {fault}")
    try:
        path = (folder / name).resolve()
        round_and_round = any(one.is_symlink() for one in (path, *path.parents))  # Python 3.13 raises nothing
    except (OSError, RuntimeError):
        round_and_round = True
    if round_and_round:
        raise BadFile(f"{name[:100]!r} in {folder} cannot be followed", "it may be a link in a circle")
    if not path.is_relative_to(folder.resolve()):
        by_name = os.path.isabs(name) or ".." in name.split("/")
        mend = "remove it" if by_name else "put a copy in the place of the link"
        raise BadFile(f"{name!r} leads out of {folder}", f"{mend}; a pack or data set names only files of its own")
    return path
