"""File names that are valid on every system, for any text, and shortening of long names."""

from __future__ import annotations

import os
import re
import sys
import unicodedata

from sglora_cli.files.hashes import data_hash
from sglora_cli.files.untrusted import is_reserved

_PLAIN = re.compile(r"[a-z0-9_]+(?: [a-z0-9_]+)*")
_LENGTH = 80


def file_stem(text: str) -> str:
    """Return a file name without extension, at most 97 characters: lower-case letters, digits, `_`, `-` and `~`.

    Different texts have different names, even on case-insensitive file systems, because special texts get 64 bits of
    their hash. No name contains `--`, so it can separate two names.

    >>> file_stem("king protea"), file_stem("C++"), file_stem("C#")
    ('king-protea', 'c~f1deb75fa21d3c47', 'c~040228846ead4a41')
    """
    if _PLAIN.fullmatch(text) and len(text) <= _LENGTH and not is_reserved(text):
        return text.replace(" ", "-")
    readable = re.sub(r"[^a-z0-9]+", "-", text.lower())[:_LENGTH].strip("-") or "x"
    return f"{readable}~{data_hash(text.encode('utf-8', 'surrogatepass'))[:16]}"


def sentence_stem(sentence: str) -> str:
    """Return a readable file name without extension: the sentence's words, joined by "-".

    Letters of all alphabets are kept if the file system supports them. Different sentences may have the same name, so
    the caller must check that it is free. A sentence without any valid letter gets a hash.

    >>> sentence_stem("A photo of a pug!"), sentence_stem("Café au lait"), sentence_stem("con")
    ('a-photo-of-a-pug', 'café-au-lait', 'adapter-1143da2bc54c495c')
    """
    text = unicodedata.normalize("NFC", sentence.lower())
    words = "".join(c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in text).split()
    whole = "-".join(words)
    stem = whole.encode()[:_LENGTH].decode(errors="ignore")
    if stem != whole:  # avoid cutting inside a word if there are several
        stem = stem.rpartition("-")[0] or stem
    try:
        stem.encode(sys.getfilesystemencoding())
    except UnicodeEncodeError:
        stem = ""
    if not stem or is_reserved(stem):
        return f"adapter-{data_hash(sentence.encode('utf-8', 'surrogatepass'))[:16]}"
    return stem


def short_name(name: str, limit: int) -> str:
    """Return a file name unchanged if it has at most `limit` bytes, otherwise shortened with a hash of the full name.

    Long names with the same beginning stay distinct. File systems count bytes, and a letter may have four.

    >>> short_name("pug", 30), short_name("a" * 100, 30)
    ('pug', 'aaaaaaaaaaaaa-2816597888e4a0d3')
    """
    data = os.fsencode(name)
    if len(data) <= limit:
        return name
    return f"{data[: limit - 17].decode(errors='ignore')}-{data_hash(data)[:16]}"
