"""Changing a file of the user's: it is replaced only while it is what was read.

An editor, a sync program or another process may write the file between our reading and our writing. What they wrote is
never lost: then nothing is written, and the caller reads again or says so.
"""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path

from sglora_cli.files.atomic import exchanged, writing
from sglora_cli.files.hashes import file_hash

ABSENT = ""
"""The state of a file that is not there."""


def state_of(path: Path) -> str:
    """What a file holds now, as a hash (`data_hash`); ABSENT if there is none. Raises BadFile if it cannot be read."""
    return file_hash(path) if os.path.lexists(path) else ABSENT


def swapped(path: Path, before: str, data: bytes) -> bool:
    """Write all of it if the file is still in the state `before`, else nothing. Whether it was written.

    Of a link, the file that it leads to is written. The file keeps its permissions. Raises Unavailable.
    """
    try:
        with writing(Path(os.path.realpath(path)), partial(_put, before=before)) as file:
            file.write(data)
    except _Changed:
        return False
    return True


class _Changed(Exception):
    """The file is not what was read."""


def _put(draft: Path, path: Path, before: str) -> None:
    """Give a finished draft the name `path`. Raises _Changed, and then the file is what it was."""
    if before == ABSENT:
        _put_new(draft, path)
        return
    if state_of(path) != before:
        raise _Changed
    os.chmod(draft, stat.S_IMODE(path.stat().st_mode))
    if not exchanged(draft, path):
        os.replace(draft, path)
        return
    if state_of(draft) != before:  # the old file, written to since it was compared: it gets its name back
        if not exchanged(draft, path):
            os.replace(draft, path)
        raise _Changed
    draft.unlink()


def _put_new(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        raise _Changed from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise _Changed from None
        os.replace(draft, path)
    else:
        draft.unlink()
