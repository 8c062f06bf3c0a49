"""What a long job did and when: a JSON object a line, appended as it happens."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sglora_cli.errors import Unavailable


class Journal:
    """A log in a file, or nowhere. A line says when (UTC), which step, and what is to be said of it."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __call__(self, step: str, **facts: Any) -> None:
        if self.path is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "step": step, **facts}, ensure_ascii=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise Unavailable(
                f"cannot write the log {self.path}: {error.strerror}", "choose another with --log"
            ) from None
