"""The program in a pseudo-terminal of a given width, and what a person sees there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass

_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass(frozen=True)
class Screen:
    """What was written, with its styles, and the exit code."""

    written: str
    exit_code: int

    @property
    def lines(self) -> list[str]:
        """Without styles."""
        return _STYLE.sub("", self.written).splitlines()


def at_terminal(*arguments: object, columns: int, **environment: str) -> Screen:
    """Run in a process of its own: both output streams are one terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    outer = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "sglora_cli.cli.main", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**outer, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's end of a terminal whose other side is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    return Screen(written.decode().replace("\r\n", "\n"), process.wait())
