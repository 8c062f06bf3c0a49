"""File names for any text: readable where the text is plain, and different for different texts on every system."""

from __future__ import annotations

import hashlib
import re

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
    return f"{readable}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
