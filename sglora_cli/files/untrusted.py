"""Limits for files from strangers: size, nesting depth, numbers, strings and names.

Limits are checked before memory is allocated.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile

JSON_LIMIT = 64 << 20
"""Bytes of a JSON file, unless its reader allows more. Python's values take about 25 times as much memory."""
TOML_LIMIT = 1 << 20
"""Bytes. The largest recipe of the paper has 5,000."""
TEXT_LIMIT = 1 << 30
"""Bytes of a file of lines. The captions of all of COCO take 60 million."""
DEPTH_LIMIT = 100
"""Depth of nested lists and tables. A deeper value might be readable but not writable."""
NAME_LIMIT, PATH_LIMIT = 255, 1000
"""Bytes of one part of a file's name and of the complete name, as common file systems allow."""
_CHUNK = 1 << 20
_RESERVED = re.compile(r"con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3]")
"""Device names on Windows, which are reserved with any extension."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*", re.ASCII)


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a file or pipe. Raises BadFile if it cannot be read or has more than `limit` bytes.

    A pipe is read to its end if a program writes to it. Otherwise it has no bytes, instead of blocking forever.
    """
    try:
        with open(path, "rb", opener=_opened) as file:
            chunks, size = [], 0
            step = max(_CHUNK, min(os.fstat(file.fileno()).st_size, limit) + 1)  # read(limit) would allocate it at once
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


def _opened(path: str, flags: int) -> int:
    """Open a file without waiting for the other end of a pipe."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(handle, True)
    return handle


def check_regular(path: Path, what: str = "") -> None:
    """Raise BadFile for a pipe, a socket or a device, because opening one may block forever. A missing file passes.

    what: the expected kind of the file, such as "image ".
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # opening it raises the proper error
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BadFile(
            f"{what}{path} is a pipe, a socket or a device, not a file", "write what it gives into a file, or remove it"
        )


def json_value(text: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Parse JSON. Raises ValueError for a value beyond the limits, or json.JSONDecodeError, which has a line.

    hook: may replace every object as soon as it is parsed. Stricter than Python's parser, as other programs are: NaN,
    infinite numbers and two equal keys of an object are refused.
    """
    try:
        value = json.loads(text, object_pairs_hook=partial(_object, hook), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_limits(value, texts="\\ud" in text or "\\uD" in text)
    return value


def _object(hook: Callable[[dict[str, Any]], Any] | None, pairs: list[tuple[str, Any]]) -> Any:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object has the key {next(key for key in keys if keys.count(key) > 1)[:100]!r} twice")
    return hook(table) if hook else table


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def check_limits(value: Any, texts: bool) -> None:
    """Raise ValueError for a value that is nested too deeply, or has a number that is infinite or beyond 64 bits.

    texts: also check for strings with an unpaired surrogate, which UTF-8 cannot encode.
    """
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
            elif type(one) is float and not math.isfinite(one):
                raise ValueError("a number is not finite")
            elif texts and type(one) is str and any("\ud800" <= c <= "\udfff" for c in one):
                raise ValueError(f"{one[:100]!a} has half a character")
        if not deeper:
            return
        level = deeper
    raise ValueError(f"nested more than {DEPTH_LIMIT} levels deep")


def name_fault(name: str) -> str:
    """Return why a name below a folder is not a valid file name, or "" if it is valid.

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


def is_reserved(name: str) -> bool:
    """Whether a part of a path means another file, or none, on Windows: a device, or a name that ends in " " or ".".

    >>> [name for name in ("pug.jpg", "aux.txt", "COM1", "a.", "a ") if is_reserved(name)]
    ['aux.txt', 'COM1', 'a.', 'a ']
    """
    return name.endswith((" ", ".")) or bool(_RESERVED.fullmatch(name.partition(".")[0].rstrip().lower()))


def is_plain(name: str, limit: int = 100) -> bool:
    """Whether a name is safe as a file name, in a shell and on a page, on every system.

    >>> [name for name in ("toys", "top-k_2.1", "x$(touch y)", "-x", "nul.txt", "a.") if is_plain(name)]
    ['toys', 'top-k_2.1']
    """
    return bool(_NAME.fullmatch(name)) and len(name) <= limit and not is_reserved(name)


def entry_fault(name: str, mode: int = 0, whole: str = "archive") -> str:
    """Return why an entry of an archive may not be unpacked, or "". Only plain files below a folder may.

    mode: the entry's Unix kind and permissions, 0 if the archive does not record them.
    whole: the word for the archive in the answer.

    >>> entry_fault("images/pug.jpg"), entry_fault("../pug.jpg")
    ('', 'is a folder, or its name leads out of the archive')
    """
    if not name.isprintable() or "\\" in name or ":" in name:
        return "has a backslash, a colon or a control character in its name"
    if any(character in name for character in '*?"<>|'):
        return 'has one of * ? " < > | in its name, which Windows does not allow'
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return f"is a folder, or its name leads out of the {whole}"
    if any(map(is_reserved, parts)):
        return "has a name that is reserved on Windows: a device, or a part that ends in a dot or a blank"
    if fault := name_fault(name):
        return f"has a name that {fault}"
    return "" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "is a link, a folder or a device, not a file"


def inside(folder: Path, name: str) -> Path:
    """Return the path of `name` in `folder`. Raises BadFile if it leads outside."""
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
