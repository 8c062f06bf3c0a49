"""Drafts of killed processes, made old enough for the next process to remove them."""

from __future__ import annotations

import os
import time
from pathlib import Path


def age_drafts(folder: Path) -> None:
    """Set all drafts below a folder back by two hours. Younger ones may belong to a living process."""
    then = time.time() - 7200
    for path in folder.rglob("*"):
        if ".draft" in path.relative_to(folder).as_posix():
            os.utime(path, (then, then), follow_symlinks=False)
