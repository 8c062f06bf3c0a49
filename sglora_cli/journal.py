"""What a long job did and when: a JSON object a line, appended as it happens."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from sglora_cli.drafts import unwritable


class Journal:
    """A log in a file, or nowhere. A line says when (UTC), which step, and what is to be said of it."""

    def __init__(self, path: Path | None) -> None:
        self.path, self._begun = path, False

    def __call__(self, step: str, **facts: Any) -> None:
        if self.path is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "step": step, **facts}, ensure_ascii=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:  # one write: lines of two processes do not mix
                file.write((self._break(file) + line + "\n").encode())
        except OSError as error:
            raise unwritable(f"cannot write the log {self.path}", error, "choose another with --log") from None

    def _break(self, file: BinaryIO) -> str:
        """A line break, once, if an earlier process was stopped in the middle of a line."""
        if self._begun:
            return ""
        self._begun = True
        if not file.seek(0, os.SEEK_END):
            return ""
        file.seek(-1, os.SEEK_END)
        return "" if file.read(1) == b"\n" else "\n"
