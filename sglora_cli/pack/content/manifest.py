"""A pack's manifest, pack.json: what it must say, and what it may not.

No torch at import time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from sglora_cli.errors import BadFile
from sglora_cli.files.untrusted import entry_fault, inside
from sglora_cli.plugin.values import EXPERT, ROLES

MANIFEST = "pack.json"
AT_ONCE = 1024
"""The most tasks that a file of tasks or experts has."""

FORMAT = 2
FORMATS = (1, 2)
"""What is read. Everything that is written has the last."""
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
    "counts": dict,
    "shards": list,
    "files": dict,
    "generators": dict,
    "default_generator": str,
}
_FIELDS_OF_1 = {name: kind for name, kind in FIELDS.items() if name not in ("counts", "shards")} | {"tasks": list}
_TASK = ("key", "dataset", "name", "role", "description")


def checked_manifest(content: Any, path: Path) -> dict[str, Any]:
    """The content of a pack.json that lies, or will lie, at `path`. Raises BadFile unless it is a manifest."""
    if not isinstance(content, dict):
        raise BadFile(f"{path} is not a table")
    if content.get("format") not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise BadFile(f"{path} has format {content.get('format')!r}, this program reads {known}", "update sglora")
    for name, kind in (_FIELDS_OF_1 if content["format"] == 1 else FIELDS).items():
        if not isinstance(content.get(name), kind):
            raise BadFile(f"{path}: {name} must be a {kind.__name__}, got {content.get(name)!r}")
    if content["format"] == 1:
        for task in content["tasks"]:
            check_task(task, str(path))
    else:
        _check_counts(content, path)
    if not isinstance(content.get("edits", []), list):
        raise BadFile(f"{path}: edits must be a list")
    check_printable(content, str(path))
    if not all(isinstance(health, dict) for health in content["generators"].values()):
        raise BadFile(f"{path}: what it says of a generator is not a table")
    _check_inside(path.parent, content["files"])
    return content


def check_task(task: Any, where: str) -> None:
    """Raises BadFile unless this says which task it is, and what for."""
    if not isinstance(task, dict) or any(not isinstance(task.get(key), str) for key in _TASK):
        raise BadFile(f"{where}: a task lacks its key, dataset, name, role or description")


def _check_counts(content: Mapping[str, Any], path: Path) -> None:
    """Raises BadFile unless the numbers of tasks fit each other. Each file has at least one: their number is limited
    by that of the files that are listed."""
    counts, shards, files = content["counts"], content["shards"], len(content["files"])
    if any(type(counts.get(role)) is not int or counts[role] < 0 for role in ROLES):
        raise BadFile(f"{path}: counts must say how many tasks there are of {', '.join(ROLES)}")
    if any(type(rows) is not int or rows < 1 for rows in shards) or sum(shards) != counts[EXPERT]:
        raise BadFile(f"{path}: shards must say how many of the {counts[EXPERT]} experts each file has")
    if any(count > AT_ONCE * files for count in counts.values()):
        raise BadFile(f"{path} lists {files} files, too few for its {sum(counts.values())} tasks")


def _check_inside(folder: Path, names: Iterable[str]) -> None:
    """Raises BadFile for a name that leads out of the folder, by itself or through a link.

    Each folder is looked through once: to follow every name takes a hundred calls of the system a name.
    """
    plain = {name for name in names if not entry_fault(name)}
    above = {parent.as_posix() for name in plain for parent in PurePosixPath(name).parents}
    linked = any(_has_links(folder / one) for one in above)
    for name in names:
        if linked or name not in plain:
            inside(folder, name)


def _has_links(folder: Path) -> bool:
    with suppress(OSError), os.scandir(folder) as entries:  # it may not be there yet
        return any(entry.is_symlink() for entry in entries)
    return False


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
