"""Check a pack's manifest, pack.json. No torch at import time."""

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
"""The most tasks in a file of tasks or experts."""

FORMAT = 2
FORMATS = (1, 2)
"""The formats that can be read. Only the last one is written."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # a summary may have newlines and tabs

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
    """Check and return the content of a pack.json at `path`. Raises BadFile unless it is a valid manifest."""
    if not isinstance(content, dict):
        raise BadFile(f"{path} is not a JSON object")
    if content.get("format") not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise BadFile(f"{path} has format {content.get('format')!r}, but this sglora reads {known}", "update sglora")
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
        raise BadFile(f"{path}: each entry of generators must be a JSON object")
    _check_inside(path.parent, content["files"])
    return content


def check_task(task: Any, where: str) -> None:
    """Raise BadFile unless the task has all required fields."""
    if not isinstance(task, dict) or any(not isinstance(task.get(key), str) for key in _TASK):
        raise BadFile(f"{where}: a task has no key, dataset, name, role or description")


def _check_counts(content: Mapping[str, Any], path: Path) -> None:
    """Raise BadFile unless the numbers of tasks are consistent. The number of listed files limits them."""
    counts, shards, files = content["counts"], content["shards"], len(content["files"])
    if any(type(counts.get(role)) is not int or counts[role] < 0 for role in ROLES):
        raise BadFile(f"{path}: counts must have the number of tasks of each role ({', '.join(ROLES)})")
    if any(type(rows) is not int or rows < 1 for rows in shards) or sum(shards) != counts[EXPERT]:
        raise BadFile(f"{path}: shards must have the number of experts of each file, {counts[EXPERT]} in all")
    if any(count > AT_ONCE * files for count in counts.values()):
        raise BadFile(f"{path} lists only {files} files for {sum(counts.values())} tasks")


def _check_inside(folder: Path, names: Iterable[str]) -> None:
    """Raise BadFile for a name that leads out of the folder, by itself or through a link."""
    # List each folder once, because resolving every single name takes a hundred system calls per name.
    plain = {name for name in names if not entry_fault(name)}
    above = {parent.as_posix() for name in plain for parent in PurePosixPath(name).parents}
    linked = any(_has_links(folder / one) for one in above)
    for name in names:
        if linked or name not in plain:
            inside(folder, name)


def _has_links(folder: Path) -> bool:
    with suppress(OSError), os.scandir(folder) as entries:  # the folder may not exist yet
        return any(entry.is_symlink() for entry in entries)
    return False


def check_printable(content: Any, where: str, hint: str = "it could manipulate the terminal") -> None:
    """Raise BadFile, with the hint, for a control character in any string of a JSON value."""
    for text in _strings(content):
        if _CONTROL.search(text):
            raise BadFile(f"{where} has a control character in {text[:100]!r}", hint)


def _strings(content: Any) -> Iterator[str]:
    """Yield all strings of a JSON value, including keys."""
    todo = [content]  # a stack, as the value may be nested as deeply as the parser's recursion allows
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list):
            todo += value
