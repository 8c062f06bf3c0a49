"""All errors that a user can act on, and their exit codes.

SgloraError
├── UsageError      2  the command line or a value on it
├── UnknownName     3  no pack, task, generator ... of that name
├── BadFile         4  a file that cannot be read as what it should be
├── Mismatch        5  things that do not belong together
├── Unavailable     6  weights, a device or data that this machine lacks
└── PluginError     7  a plugin that is broken or breaks its contract

The message says what happened, with the value; the hint says what to do. Several errors at once are one error whose
message has a line for each: `SgloraError.several`. Only `cli/main.py` catches them. Exit code 1 is a bug, 130 an
interruption (Ctrl-C), 141 a pipe that nobody reads any more, 143 a termination (SIGTERM).
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self


class SgloraError(Exception):
    """An error the user can act on. Subclasses keep this constructor, or they could not be pickled."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "", parts: Sequence[SgloraError] = ()) -> None:
        super().__init__(message, hint, *((tuple(parts),) if parts else ()))
        self.message = message
        self.hint = hint
        self.parts = tuple(parts)
        """Of several errors at once: each of them. Only such a message has more than one line."""

    @classmethod
    def several(cls, heading: str, parts: Iterable[SgloraError]) -> Self:
        """Several errors as one: the message has a line for each part, with its hint, below the heading."""
        single = [one for part in parts for one in part.parts or (part,)]
        return cls("\n  ".join(map(_one_line, [heading, *map(_with_hint, single)])), "", single)

    def __str__(self) -> str:
        return self.message

    def to_json(self) -> dict[str, Any]:
        """The error as JSON values, as `--json` prints it on standard error."""
        facts = error_facts(type(self).__name__, self.message, self.hint, self.exit_code)
        if self.parts:
            facts["error"]["errors"] = [part.to_json()["error"] for part in self.parts]
        return facts


def _with_hint(error: SgloraError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _one_line(text: str) -> str:
    """A line break came from a stranger's file: it stays escaped."""
    return text.replace("\n", "\\n")


def error_facts(kind: str, message: str, hint: str, exit_code: int) -> dict[str, Any]:
    """The JSON values of an error."""
    return {"error": {"class": kind, "message": message, "hint": hint, "exit_code": exit_code}}


class SgloraWarning(UserWarning):
    """A warning for the user, which the program prints on standard error."""


class UsageError(SgloraError):
    """The command line, or a value on it, is invalid."""

    exit_code = 2


class UnknownName(SgloraError):
    """Nothing of that kind has that name."""

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
            names = [file.name for file in path.parent.iterdir() if file.name != path.name]  # a link to nowhere
        except OSError:
            names = []
        close = difflib.get_close_matches(path.name, names, n=1)
        hint = (
            f"did you mean {str(path.with_name(close[0]))!r}?" if close else f"looked for in {path.parent.absolute()}"
        )
        return cls(f"{what}{path} does not exist", hint)


class Mismatch(SgloraError):
    """Things that do not belong together: an adapter and another backbone, numbers and a range."""

    exit_code = 5


class Unavailable(SgloraError):
    """Weights, a device, a package or data that this machine lacks."""

    exit_code = 6


class PluginError(SgloraError):
    """A plugin that is broken or breaks its contract."""

    exit_code = 7


_PLACE = "choose a place that you may write to: with -o, or SGLORA_HOME for the user folders"
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there, or choose another place"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _PLACE),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file is where a folder is needed: choose another place"),
}


def unwritable(what: str, error: OSError, hint: str = "") -> Unavailable:
    """The error of a place that cannot be written, with a remedy as hint. `what`: as in "cannot write x"."""
    remedy = _REMEDIES.get(error.errno or 0, "choose another place")
    return Unavailable(f"{what}: {error.strerror or error}", hint or remedy)


GO_ON = "finished steps are kept, and the same command goes on after them"
_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE}


def failure_of(error: BaseException) -> SgloraError | None:
    """The error for the user if the machine failed: a full disk, no permission, no memory, a lost GPU.

    None for any other error: that is a bug.
    """
    if isinstance(error, OSError):
        if error.errno == errno.ENAMETOOLONG:
            return UsageError(
                f"a name is too long: {os.fsdecode(error.filename or b'')[:60]}...", "choose a shorter one"
            )
        where = f"cannot use {os.fsdecode(error.filename)}" if error.filename else "the system refuses"
        return unwritable(where, error) if error.errno in _OURS else None
    if not isinstance(error, (RuntimeError, MemoryError)):
        return None
    reason = (str(error) or "no memory is left").strip().split("\n")[0][:200]
    kind = f"{type(error).__name__} {reason}".lower()
    if isinstance(error, MemoryError) or "outofmemory" in kind or "out of memory" in kind or "allocate memory" in kind:
        return Unavailable(
            f"there is not enough memory: {reason}",
            f"end other programs that use it, pass --device cpu, or build with smaller tasks_at_once; {GO_ON}",
        )
    if "acceleratorerror" in kind or "cuda" in kind or "hip error" in kind or "mps backend" in kind:
        return Unavailable(f"the device failed: {reason}", f"run it again, or pass --device cpu; {GO_ON}")
    return None
