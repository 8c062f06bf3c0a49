"""Files that a list names: each once, however it is spelled."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from sglora_cli.errors import BadFile


def plain_name(name: str) -> str:
    """A name below a folder without `.`, `//` and `..`; one that leads out of the folder keeps its first `..`.

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

    Two names are of one image if they are equal without `.`, `//` and `..`, or, where `root` is known, if they lead to
    one file there: through links, or on a file system that does not tell `A` from `a`. Hard links are two files.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._first: dict[object, tuple[str, str]] = {}

    def add(self, name: str, where: str, place: str = "") -> None:
        """Take in a name. `where` says what named it, and `place` the same for who is there: "line 3" of a file.

        Raises BadFile if its image was named before.
        """
        keys: list[object] = [plain_name(name)]
        if self._root is not None and (file := _file(self._root / name)):
            keys.append(file)
        for key in keys:
            if key in self._first:
                first, before = self._first[key]
                spelled = "" if first == name else f", as {first!r}"
                raise BadFile(f"{where}: image {name!r} was named before, in {before}{spelled}", "name it once")
        self._first.update(dict.fromkeys(keys, (name, place or where)))


def _file(path: Path) -> tuple[object, ...]:
    """What is the same for two names of one file only; () if it is not there."""
    try:
        facts = path.stat()
        number = (facts.st_dev, facts.st_ino)
        if facts.st_nlink == 1 and facts.st_ino:  # a file system without such numbers says 0
            return number
        return (*number, unicodedata.normalize("NFC", os.path.realpath(path)).casefold())
    except (OSError, ValueError):  # ValueError: a NUL
        return ()
