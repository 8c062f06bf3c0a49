"""File names that every system takes: for any text, and for names that are too long."""

from __future__ import annotations

import os
import re
import sys
import unicodedata

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


def sentence_stem(sentence: str) -> str:
    """A file name without an ending that a person finds again: the sentence's own words, joined by "-".

    Letters of every alphabet stay if the file system holds them. Several sentences may share one: whoever writes the
    file looks whether it is free. A sentence without a letter that a name can hold gets a hash.

    >>> sentence_stem("A photo of a pug!"), sentence_stem("Café au lait"), sentence_stem("con")
    ('a-photo-of-a-pug', 'café-au-lait', 'adapter-1143da2bc54c495c')
    """
    text = unicodedata.normalize("NFC", sentence.lower())
    words = "".join(c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in text).split()
    whole = "-".join(words)
    stem = whole.encode()[:_LENGTH].decode(errors="ignore")
    if stem != whole:  # not in the middle of a word, if there are several
        stem = stem.rpartition("-")[0] or stem
    try:
        stem.encode(sys.getfilesystemencoding())
    except UnicodeEncodeError:
        stem = ""
    if not stem or _RESERVED.fullmatch(stem):
        return f"adapter-{data_hash(sentence.encode('utf-8', 'surrogatepass'))[:16]}"
    return stem


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
