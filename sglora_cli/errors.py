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


class SgloraError(Exception):
    """An error the user can act on. Subclasses keep this constructor, or they could not be pickled."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class SgloraWarning(UserWarning):
    """Something the user should know and that stops nothing; the program prints it on standard error."""


class UsageError(SgloraError):
    exit_code = 2


class UnknownName(SgloraError):
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
    exit_code = 4


class BadRecipe(BadFile):
    """Several errors of one recipe; its message is the only one of several lines."""


class Mismatch(SgloraError):
    exit_code = 5


class Unavailable(SgloraError):
    exit_code = 6


class PluginError(SgloraError):
    exit_code = 7
