"""The file that captions are appended to. It belongs to the user, who may edit it while lines are written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sglora_cli.data.caption_file import Captioned, read_lines
from sglora_cli.errors import SgloraWarning, Unavailable, unwritable
from sglora_cli.files.text import append_lines, drop_torn_line
from sglora_cli.system.locks import locked


class CaptionTarget:
    """A captions file, one line per image. It detects lines that others add meanwhile and preserves them."""

    def __init__(self, path: Path, lines: Mapping[str, Captioned]) -> None:
        """lines: the current lines of the file."""
        self.path, self.lines, self._seen = path, lines, _version(path)

    def has(self, image: str) -> bool:
        """Whether the image has a line now. Raises BadFile if the file was damaged meanwhile."""
        if (now := _version(self.path)) != self._seen:
            self.lines, self._seen = read_lines(self.path), now
        return image in self.lines

    def append(self, line: str) -> None:
        """Append a line. Raises OSError."""
        append_lines(self.path, [line + "\n"])
        self._seen = _version(self.path)


def _version(path: Path) -> tuple[int, int, int]:
    """Return values that change whenever the file is written."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return state.st_ino, state.st_size, state.st_mtime_ns


def changed(path: Path) -> Unavailable:
    """Return the error for a file that has changed since it was read."""
    return Unavailable(
        f"{path} was changed by another program, so nothing was written to it",
        "run the same command again to start from the current content",
    )


@contextmanager
def appending(path: Path) -> Iterator[None]:
    """Lock the file and remove an incomplete last line, so that lines can be appended. Raises Unavailable."""
    with locked(path, wait=False):
        try:
            if path.exists() and (line := drop_torn_line(path)):
                text = f"{path} ended in an incomplete line, which was removed: {line!r:.300}"
                warnings.warn(text, SgloraWarning, stacklevel=3)
            append_lines(path, ())
            try:
                yield
            finally:
                if path.exists() and os.path.getsize(path) == 0:  # a data set would read an empty captions file
                    path.unlink()
        except OSError as error:
            raise unwritable(
                f"cannot write {path}", error, "run the same command again; complete lines in the file are preserved"
            ) from error
