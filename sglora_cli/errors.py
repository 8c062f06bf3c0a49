"""Errors that a user can act on, with their exit codes.

SgloraError
├── UsageError      2  invalid command line, or an invalid value on it
├── UnknownName     3  no pack, task, generator ... with that name
├── BadFile         4  a file that cannot be read as the expected format
├── Mismatch        5  things that do not belong together
├── Unavailable     6  weights, a device or data missing on this machine
└── PluginError     7  a plugin that is broken or breaks its contract

The message says what happened and includes the value. The hint says what to do. `SgloraError.several` combines several
errors into one, whose message has a line for each. Only `cli/main.py` catches these errors. The other exit codes are
1 for a bug, 130 for an interruption (Ctrl-C, or "no" to a question), 141 for a closed pipe and 143 for termination
(SIGTERM).
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
    """An error the user can act on. Subclasses keep this constructor so that they can be pickled."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "", parts: Sequence[SgloraError] = ()) -> None:
        super().__init__(message, hint, *((tuple(parts),) if parts else ()))
        self.message = message
        self.hint = hint
        self.parts = tuple(parts)
        """The single errors if several were combined. Only then does the message have more than one line."""

    @classmethod
    def several(cls, heading: str, parts: Iterable[SgloraError]) -> Self:
        """Combine several errors into one. Below the heading, the message has one line per part, with its hint."""
        single = [one for part in parts for one in part.parts or (part,)]
        return cls("\n  ".join(map(_one_line, [heading, *map(_with_hint, single)])), "", single)

    @classmethod
    def missing(cls, path: Path, what: str = "", remedy: str = "") -> Self:
        """Create the error for a `path` that does not exist, with the hint of `missing_hint`.

        what: kind of file with a trailing space, such as "recipe ".
        """
        return cls(f"{what}{path} does not exist", missing_hint(path, remedy))

    @classmethod
    def no_folder(cls, path: Path, what: str = "", remedy: str = "") -> Self:
        """Create the error for a `path` that is no folder, because it is a file or does not exist (see `missing`)."""
        return cls(f"{path} is a file, not a folder", remedy) if path.exists() else cls.missing(path, what, remedy)

    def __str__(self) -> str:
        return self.message

    def to_json(self) -> dict[str, Any]:
        """Return the JSON values that `--json` prints on standard error."""
        facts = error_facts(type(self).__name__, self.message, self.hint, self.exit_code)
        if self.parts:
            facts["error"]["errors"] = [part.to_json()["error"] for part in self.parts]
        return facts


def _with_hint(error: SgloraError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _one_line(text: str) -> str:
    """Escape line breaks, which can only come from an untrusted file."""
    return text.replace("\n", "\\n")


def error_facts(kind: str, message: str, hint: str, exit_code: int) -> dict[str, Any]:
    """Return the JSON values of an error."""
    return {"error": {"class": kind, "message": message, "hint": hint, "exit_code": exit_code}}


class SgloraWarning(UserWarning):
    """A warning for the user. The program prints it on standard error."""


class UsageError(SgloraError):
    """The command line, or a value on it, is invalid."""

    exit_code = 2


_LISTED_NAMES = 12
"""The most names in a hint."""


class UnknownName(SgloraError):
    """No object of that kind has that name."""

    exit_code = 3

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], listing: str = "") -> UnknownName:
        """Create the error for an unknown `kind` `name`. The hint is the closest known name or a list of names.

        listing: the command that lists all names, for a hint that would be too long.
        """
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=1)
        if close:
            hint = f"did you mean {close[0]!r}?"
        elif names:
            more = len(names) - _LISTED_NAMES
            hint = f"available: {', '.join(names[:_LISTED_NAMES])}" + (f" and {more} more" if more > 0 else "")
            hint += f"; run `{listing}` for the complete list" if listing and more > 0 else ""
        else:
            hint = f"there is no {kind} yet"
        return cls(f"no {kind} named {name!r}", hint)


class BadFile(SgloraError):
    """A file cannot be read as the expected format."""

    exit_code = 4


class Mismatch(SgloraError):
    """Things that do not belong together, such as an adapter and another backbone, or a number and a range."""

    exit_code = 5


class Unavailable(SgloraError):
    """Weights, a device, a package or data are missing on this machine."""

    exit_code = 6


class PluginError(SgloraError):
    """A plugin that is broken or breaks its contract."""

    exit_code = 7


def missing_hint(path: Path, remedy: str = "") -> str:
    """Return a hint for a `path` that does not exist: the remedy, and the closest name or the nearest existing folder.

    remedy: what to do, as an imperative without a full stop.
    """
    try:
        names = [file.name for file in path.parent.iterdir() if file.name != path.name]  # `path` may be a broken link
    except OSError:
        names = []
    if close := difflib.get_close_matches(path.name, names, n=1):
        found = f"did you mean {str(path.with_name(close[0]))!r}?"
        return f"{found} Otherwise {remedy}" if remedy else found
    folder = parent = path.absolute().parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    where = f"searched in {folder}" if folder == parent else f"the nearest existing folder is {folder}"
    return f"{remedy}; {where}" if remedy else where


_PLACE = "pass a writable path with -o, or set SGLORA_HOME to a writable folder"
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free disk space there, or choose another place"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _PLACE),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST), "choose another place, because a file exists where a folder is needed"
    ),
}


def unwritable(what: str, error: OSError, hint: str = "") -> Unavailable:
    """Return the error for a path that cannot be written, with a remedy as hint. `what`: as in "cannot write x"."""
    remedy = _REMEDIES.get(error.errno or 0, "choose another place")
    return Unavailable(f"{what}: {error.strerror or error}", hint or remedy)


GO_ON = "finished steps are saved, and the same command resumes after them"
_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE}


def failure_of(error: BaseException) -> SgloraError | None:
    """Return the user's error if the machine failed (full disk, no permission, no memory, lost GPU), or for a name that
    cannot be written.

    Return None for any other error, which is a bug.
    """
    if isinstance(error, UnicodeEncodeError) and "\ud800" <= error.object[error.start] <= "\udfff":  # a byte of a name
        around = error.object[max(0, error.start - 40) : error.end + 20]
        return UsageError(f"a name is not UTF-8: {around!a}", "rename the file or folder")
    if isinstance(error, OSError):
        if error.errno == errno.ENAMETOOLONG:
            return UsageError(
                f"a name is too long: {os.fsdecode(error.filename or b'')[:60]}...", "choose a shorter one"
            )
        where = f"cannot use {os.fsdecode(error.filename)}" if error.filename else "the operating system refused"
        return unwritable(where, error) if error.errno in _OURS else None
    if not isinstance(error, (RuntimeError, MemoryError)):
        return None
    reason = (str(error) or "no memory is left").strip().split("\n")[0][:200]
    kind = f"{type(error).__name__} {reason}".lower()
    if isinstance(error, MemoryError) or "outofmemory" in kind or "out of memory" in kind or "allocate memory" in kind:
        return Unavailable(
            f"not enough memory: {reason}",
            f"pass --device cpu, build with a smaller tasks_at_once, or close programs that use memory ({GO_ON})",
        )
    if "acceleratorerror" in kind or "cuda" in kind or "hip error" in kind or "mps backend" in kind:
        return Unavailable(f"the device failed: {reason}", f"run it again, or pass --device cpu ({GO_ON})")
    return None
