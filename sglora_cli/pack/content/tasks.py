"""The tasks of a pack, one JSON object each, as `pack show --json` lists them.

In format 2 they are stored in separate files, because a manifest with 10,000 tasks would have to be parsed before
anything else is known:

    tasks/expert-00000.jsonl     the experts of the first file of experts/, one JSON object per line
    tasks/training-00000.jsonl   tasks of the other roles, 1,024 per file

A file is read when one of its tasks is requested, and a line is parsed and checked when its own task is. No torch at
import time.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, overload

from sglora_cli.errors import BadFile
from sglora_cli.files.atomic import write_bytes
from sglora_cli.files.untrusted import JSON_LIMIT, json_value, read_bytes
from sglora_cli.pack.content.manifest import AT_ONCE, check_printable, check_task
from sglora_cli.plugin.values import EXPERT, ROLES

Task = Mapping[str, Any]
"""A task's key, dataset, name, role, description, and optional fields."""
TASKS = "tasks"
_KEPT = 8
"""The number of files whose lines are cached in memory."""


class TaskLines(Sequence[Task]):
    """The tasks of one role, read from files with one task per line."""

    def __init__(self, folder: Path, role: str, counts: Sequence[int]) -> None:
        """folder: the pack's folder.  counts: the number of tasks in each file."""
        self._folder, self._role, self._counts = folder, role, tuple(counts)
        self._firsts = [0, *accumulate(self._counts)]
        self._lines = lru_cache(maxsize=_KEPT)(self._read)

    def __len__(self) -> int:
        return self._firsts[-1]

    @overload
    def __getitem__(self, row: int) -> Task: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Task]: ...
    def __getitem__(self, row: int | slice) -> Task | Sequence[Task]:
        if isinstance(row, slice):
            return [self[one] for one in range(len(self))[row]]
        row = range(len(self))[row]
        file = bisect_right(self._firsts, row) - 1
        return self._task(file, row - self._firsts[file])

    def __iter__(self) -> Iterator[Task]:
        return (self._task(file, n) for file, count in enumerate(self._counts) for n in range(count))

    def keys(self) -> Iterator[str]:
        """Yield the keys of all tasks. Nothing else of a line is checked, which takes a fifth of the time."""
        for file, count in enumerate(self._counts):
            path, lines = self._folder / tasks_file(self._role, file), self._lines(file)
            for n in range(count):
                try:
                    key = json.loads(lines[n])["key"]
                except (ValueError, TypeError, KeyError, RecursionError):
                    key = None
                if type(key) is not str:
                    key = self._task(file, n)["key"]  # raises the precise error
                check_printable(key, f"{path}, line {n + 1}")
                yield key

    def check_files(self, changed: Collection[str]) -> None:
        """Read and check the tasks in the changed files. Raises BadFile."""
        for file, count in enumerate(self._counts):
            if tasks_file(self._role, file) in changed:
                for n in range(count):
                    self._task(file, n)

    def _read(self, file: int) -> list[bytes]:
        path = self._folder / tasks_file(self._role, file)
        lines = read_bytes(path, JSON_LIMIT).split(b"\n")
        if len(lines) != self._counts[file] + 1 or lines.pop():
            raise BadFile(f"{path} does not have {self._counts[file]} lines", "build or fetch the pack again")
        return lines

    def _task(self, file: int, n: int) -> Task:
        where = f"{self._folder / tasks_file(self._role, file)}, line {n + 1}"
        try:
            task = json_value(self._lines(file)[n].decode("utf-8"))
        except ValueError as error:
            raise BadFile(f"{where}: not JSON: {error}") from None
        check_task(task, where)
        if task["role"] != self._role:
            raise BadFile(f"{where}: the role of {task['key']!r} is {task['role']!r}, not {self._role!r}")
        check_printable(task, where)
        return dict(task)


class Tasks:
    """All tasks of a pack, read on demand."""

    def __init__(self, of: Mapping[str, Sequence[Task]]) -> None:
        self._of = of

    def of(self, role: str) -> Sequence[Task]:
        """Return the tasks of a role, in the pack's order."""
        return self._of.get(role, ())

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def __iter__(self) -> Iterator[Task]:
        """Iterate over experts first, then over the other roles."""
        return chain.from_iterable(self._of.values())

    def check(self) -> None:
        """Read and check all tasks. Raises BadFile, also if two tasks have the same key."""
        known: set[str] = set()
        for task in self:
            if task["key"] in known:
                raise BadFile(f"the pack has two tasks {task['key']!r}", "build the pack again")
            known.add(task["key"])

    def check_files(self, changed: Collection[str]) -> None:
        """Read and check the tasks in the changed files. Raises BadFile."""
        # The tasks of format 1 are part of the manifest, which is already checked.
        for tasks in self._of.values():
            if isinstance(tasks, TaskLines):
                tasks.check_files(changed)


class Keys(Sequence[str]):
    """The keys of tasks, read on demand."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...
    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        found = self._tasks[row]
        return [task["key"] for task in found] if isinstance(found, list) else found["key"]  # type: ignore[call-overload]

    def __iter__(self) -> Iterator[str]:
        return self._tasks.keys() if isinstance(self._tasks, TaskLines) else (task["key"] for task in self._tasks)


def tasks_file(role: str, file: int) -> str:
    """Return the path of a file of tasks, relative to the pack's folder."""
    return f"{TASKS}/{role}-{file:05d}.jsonl"


def parts(count: int, at_once: int = AT_ONCE) -> list[int]:
    """Split `count` rows into files and return the number of rows in each.

    >>> parts(2500)
    [1024, 1024, 452]
    """
    return [min(at_once, count - first) for first in range(0, count, at_once)]


def tasks_of(folder: Path, manifest: Mapping[str, Any]) -> Tasks:
    """Return the tasks of the pack in a folder, for any format. manifest: must have been checked."""
    if manifest["format"] == 1:
        listed: list[Task] = manifest["tasks"]
        roles = dict.fromkeys([*ROLES, *(task["role"] for task in listed)])
        return Tasks({role: [task for task in listed if task["role"] == role] for role in roles})
    counts = {role: parts(manifest["counts"][role]) for role in ROLES} | {EXPERT: manifest["shards"]}
    return Tasks({role: TaskLines(folder, role, counts[role]) for role in ROLES})


def write_tasks(folder: Path, role: str, tasks: Sequence[Task], counts: Sequence[int]) -> None:
    """Write all tasks of a role. counts: the number of tasks in each file."""
    firsts = [0, *accumulate(counts)]
    for file, (first, end) in enumerate(pairwise(firsts)):
        write_task_lines(folder, role, file, tasks[first:end])


def write_task_lines(folder: Path, role: str, file: int, tasks: Iterable[Task]) -> None:
    """Write one file of tasks."""
    lines = [json.dumps(dict(task), sort_keys=True, ensure_ascii=False) + "\n" for task in tasks]
    write_bytes(folder / tasks_file(role, file), "".join(lines).encode())
