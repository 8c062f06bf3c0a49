"""A pack's manifest, pack.json: what it must say, and what it may not.

No torch at import time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile
from sglora_cli.files.untrusted import inside

MANIFEST = "pack.json"

FORMAT = 1
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # a summary may have lines and tabs

FIELDS: dict[str, type] = {
    "format": int,
    "name": str,
    "made_by": str,
    "backbone": str,
    "fingerprint": str,
    "recipe": dict,
    "layout": dict,
    "prior": dict,
    "tasks": list,
    "files": dict,
    "generators": dict,
    "default_generator": str,
}


def checked_manifest(content: Any, path: Path) -> dict[str, Any]:
    """The content of a pack.json that lies, or will lie, at `path`. Raises BadFile unless it is a manifest."""
    if not isinstance(content, dict):
        raise BadFile(f"{path} is not a table")
    if content.get("format") != FORMAT:
        raise BadFile(f"{path} has format {content.get('format')!r}, this program reads {FORMAT}", "update sglora")
    for name, kind in FIELDS.items():
        if not isinstance(content.get(name), kind):
            raise BadFile(f"{path}: {name} must be a {kind.__name__}, got {content.get(name)!r}")
    for task in content["tasks"]:
        if not isinstance(task, dict) or any(
            not isinstance(task.get(k), str) for k in ("key", "dataset", "name", "role", "description")
        ):
            raise BadFile(f"{path}: a task lacks its key, dataset, name, role or description")
    if not isinstance(content.get("edits", []), list):
        raise BadFile(f"{path}: edits must be a list")
    check_printable(content, str(path))
    if not all(isinstance(health, dict) for health in content["generators"].values()):
        raise BadFile(f"{path}: what it says of a generator is not a table")
    for name in content["files"]:
        inside(path.parent, name)
    return content


def check_printable(content: Any, where: str, hint: str = "it could do anything to a terminal") -> None:
    """Raises BadFile, with the hint, for a control character in any string of a JSON value."""
    for text in _strings(content):
        if _CONTROL.search(text):
            raise BadFile(f"{where} has a control character in {text[:100]!r}", hint)


def _strings(content: Any) -> Iterator[str]:
    """All strings of a JSON value, keys too."""
    todo = [content]  # a stack: the value may be nested as deep as the recursion that parsed it
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list):
            todo += value
