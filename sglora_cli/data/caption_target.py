"""The file that captions are added to. It belongs to the user, who may change it while lines are written."""

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
    """An open file of captions, an image a line. Lines that others write meanwhile are found, and kept."""

    def __init__(self, path: Path, lines: Mapping[str, Captioned]) -> None:
        """lines: those that are in the file now."""
        self.path, self.lines, self._seen = path, lines, _version(path)

    def has(self, image: str) -> bool:
        """Whether the image has a line by now. Raises BadFile if somebody has broken the file meanwhile."""
        if (now := _version(self.path)) != self._seen:
            self.lines, self._seen = read_lines(self.path), now
        return image in self.lines

    def append(self, line: str) -> None:
        """Add a line. Raises OSError."""
        append_lines(self.path, [line + "\n"])
        self._seen = _version(self.path)


def _version(path: Path) -> tuple[int, int, int]:
    """What changes whenever somebody writes the file."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return state.st_ino, state.st_size, state.st_mtime_ns


def changed(path: Path) -> Unavailable:
    """The error for a file that is not what was read."""
    return Unavailable(
        f"{path} was changed while this ran, so nothing was written into it",
        "run it again: it starts from what the file says then",
    )


@contextmanager
def appending(path: Path) -> Iterator[None]:
    """Hold the file for this process alone, ending with a whole line, so that lines can be appended.

    Raises Unavailable.
    """
    with locked(path, wait=False):
        try:
            if path.exists() and (line := drop_torn_line(path)):
                text = f"{path} ended in the beginning of a line, which was removed: {line!r:.300}"
                warnings.warn(text, SgloraWarning, stacklevel=3)
            append_lines(path, ())
            try:
                yield
            finally:
                if path.exists() and os.path.getsize(path) == 0:  # a data set would take it for its captions
                    path.unlink()
        except OSError as error:
            raise unwritable(f"cannot write {path}", error, "whole lines in it are kept: run it again") from error
