"""Check that a list names each file only once, in any spelling."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from sglora_cli.errors import BadFile


def plain_name(name: str) -> str:
    """Normalise a relative name by removing `.`, `//` and `..`. A name that leads outside keeps its first `..`.

    >>> plain_name("./images//old/../00.jpg"), plain_name("../00.jpg"), plain_name("/00.jpg")
    ('images/00.jpg', '../00.jpg', '/00.jpg')
    """
    parts: list[str] = []
    for part in name.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return ("/" if name.startswith("/") else "") + "/".join(parts)


class NamedOnce:
    """The images that a list has named so far.

    Two names are the same image if they are equal after normalising `.`, `//` and `..`, or, if `root` is given, if they
    lead to the same file there, through links or on a case-insensitive file system. Hard links count as two files.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._first: dict[object, tuple[str, str]] = {}

    def add(self, name: str, where: str, place: str = "") -> None:
        """Add a name. `where` is its place for error messages, `place` a shorter form such as "line 3" in that file.

        Raises BadFile if its image was already named.
        """
        keys: list[object] = [plain_name(name)]
        if self._root is not None and (file := _file(self._root / name)):
            keys.append(file)
        for key in keys:
            if key in self._first:
                first, before = self._first[key]
                spelled = "" if first == name else f", as {first!r}"
                raise BadFile(f"{where}: image {name!r} is already named in {before}{spelled}", "remove one of the two")
        self._first.update(dict.fromkeys(keys, (name, place or where)))


def _file(path: Path) -> tuple[object, ...]:
    """Return an identity of a file that is equal for all its names, or () if it does not exist."""
    try:
        facts = path.stat()
        number = (facts.st_dev, facts.st_ino)
        if facts.st_nlink == 1 and facts.st_ino:  # a file system without inode numbers reports 0
            return number
        return (*number, unicodedata.normalize("NFC", os.path.realpath(path)).casefold())
    except (OSError, ValueError):  # ValueError: a NUL
        return ()
