"""File names that every system takes: for any text, and for names that are too long. No two texts share one."""

from __future__ import annotations

import os
import re

from sglora_cli.files.hashes import data_hash

_PLAIN = re.compile(r"[a-z0-9_]+(?: [a-z0-9_]+)*")
_RESERVED = re.compile(r"con|prn|aux|nul|(?:com|lpt)[0-9]")
"""What Windows takes for a device, whatever the ending."""
_LENGTH = 80


def file_stem(text: str) -> str:
    """A file name without an ending, of at most 97 characters: lower-case letters, digits, `_`, `-` and `~`.

    Two texts never share one, not even on a file system that ignores case: what is not plain gets 64 bits of its hash.
    No name contains `--`, so two of them can be joined by it.

    >>> file_stem("king protea"), file_stem("C++"), file_stem("C#")
    ('king-protea', 'c~f1deb75fa21d3c47', 'c~040228846ead4a41')
    """
    if _PLAIN.fullmatch(text) and len(text) <= _LENGTH and not _RESERVED.fullmatch(text):
        return text.replace(" ", "-")
    readable = re.sub(r"[^a-z0-9]+", "-", text.lower())[:_LENGTH].strip("-") or "x"
    return f"{readable}~{data_hash(text.encode('utf-8', 'surrogatepass'))[:16]}"


def short_name(name: str, limit: int) -> str:
    """A file's name if it has at most `limit` bytes; else as much of it as fits, and a hash of all of it.

    Names that begin alike stay apart. File systems count bytes, and a letter may have four.

    >>> short_name("pug", 30), short_name("a" * 100, 30)
    ('pug', 'aaaaaaaaaaaaa-2816597888e4a0d3')
    """
    data = os.fsencode(name)
    if len(data) <= limit:
        return name
    return f"{data[: limit - 17].decode(errors='ignore')}-{data_hash(data)[:16]}"
