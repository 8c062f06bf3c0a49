"""Replace a user's file only if it has not changed since it was read.

An editor, a sync program or another process may write the file between reading and writing. Their changes are never
overwritten: nothing is written in this case, and the caller reads the file again or reports the conflict.
"""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path

from sglora_cli.files.atomic import exchanged, writing
from sglora_cli.files.hashes import file_hash

ABSENT = ""
"""The state of a file that does not exist."""


def state_of(path: Path) -> str:
    """Return the file's state, which is its hash (`data_hash`) or ABSENT. Raises BadFile if it cannot be read."""
    return file_hash(path) if os.path.lexists(path) else ABSENT


def swapped(path: Path, before: str, data: bytes) -> bool:
    """Atomically replace a file if it is still in the state `before`. Returns whether it was written.

    Links are followed. The file keeps its permissions. Raises Unavailable.
    """
    try:
        with writing(Path(os.path.realpath(path)), partial(_put, before=before)) as file:
            file.write(data)
    except _Changed:
        return False
    return True


class _Changed(Exception):
    """The file has changed since it was read."""


def _put(draft: Path, path: Path, before: str) -> None:
    """Rename a finished draft to `path`. Raises _Changed and leaves the file as it was if it has changed."""
    if before == ABSENT:
        _put_new(draft, path)
        return
    if state_of(path) != before:
        raise _Changed
    os.chmod(draft, stat.S_IMODE(path.stat().st_mode))
    if not exchanged(draft, path):
        os.replace(draft, path)
        return
    if state_of(draft) != before:  # the old file changed after the comparison, so restore it
        if not exchanged(draft, path):
            os.replace(draft, path)
        raise _Changed
    draft.unlink()


def _put_new(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        raise _Changed from None
    except OSError:  # the file system has no hard links
        if os.path.lexists(path):
            raise _Changed from None
        os.replace(draft, path)
    else:
        draft.unlink()
