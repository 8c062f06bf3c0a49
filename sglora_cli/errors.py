"""Everything that can go wrong on purpose, and the exit code it becomes.

SgloraError
├── UsageError      2  the command line or a value on it
├── UnknownName     3  no pack, task, generator ... of that name
├── BadFile         4  a file that cannot be read as what it should be
│   └── BadRecipe   4  a recipe with several errors: the message has a line for each
├── Mismatch        5  things that do not belong together
├── Unavailable     6  weights, a device or data that this machine lacks
└── PluginError     7  a plugin that is broken or breaks its contract

The message says what happened, with the value; the hint says what to do. `cli.py` is the
only place that catches them. Exit code 1 is a bug, 130 an interruption (Ctrl-C), 143 a termination (SIGTERM).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class SgloraError(Exception):
    """An error the user can act on. Subclasses keep this constructor, or they could not be pickled."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def facts(self) -> dict[str, Any]:
        """For programs: what `--json` prints on standard error."""
        return error_facts(type(self).__name__, self.message, self.hint, self.exit_code)


def error_facts(kind: str, message: str, hint: str, exit_code: int) -> dict[str, Any]:
    """The one form of an error in JSON."""
    return {"error": {"class": kind, "message": message, "hint": hint, "exit_code": exit_code}}


class SgloraWarning(UserWarning):
    """Something the user should know and that stops nothing; the program prints it on standard error."""


class UsageError(SgloraError):
    """The command line, or a value on it, cannot be meant."""

    exit_code = 2


class UnknownName(SgloraError):
    """There is nothing of that kind with that name."""

    exit_code = 3

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownName:
        """No `kind` named `name`; the hint is the closest known name, or the list of them."""
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=1)
        if close:
            hint = f"did you mean {close[0]!r}?"
        elif names:
            hint = "there are: " + ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        else:
            hint = f"there is no {kind} at all"
        return cls(f"no {kind} named {name!r}", hint)


class BadFile(SgloraError):
    """A file cannot be read as what it should be."""

    exit_code = 4

    @classmethod
    def missing(cls, path: Path, what: str = "") -> BadFile:
        """There is no `path`, which is a `what` ("recipe "); the hint is the closest name there is, or its folder."""
        try:
            names = [found.name for found in path.parent.iterdir()]
        except OSError:
            names = []
        close = difflib.get_close_matches(path.name, names, n=1)
        hint = (
            f"did you mean {str(path.with_name(close[0]))!r}?" if close else f"looked for in {path.parent.absolute()}"
        )
        return cls(f"{what}{path} does not exist", hint)


class BadRecipe(BadFile):
    """Several errors of one recipe; its message is the only one of several lines."""


class Mismatch(SgloraError):
    """Things that do not belong together: an adapter and another backbone, numbers and a range."""

    exit_code = 5


class Unavailable(SgloraError):
    """Weights, a device, a package or data that this machine lacks."""

    exit_code = 6


class PluginError(SgloraError):
    """A plugin that is broken or breaks its contract."""

    exit_code = 7
