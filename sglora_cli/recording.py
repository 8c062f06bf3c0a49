"""Rows go to disk as they are measured: a rows file that the next run of the same plan goes on with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sglora_cli.contracts import Row
from sglora_cli.errors import Mismatch
from sglora_cli.files import write_bytes
from sglora_cli.locking import locked
from sglora_cli.rows_files import Header, Run, append, drop_torn_line, read_rows, row_line
from sglora_cli.settings import cache_folder


class Log:
    """The rows of one plan in a rows file. Runs of other plans before it stay as they are.

    Raises, before anything is measured: BadFile if the file is something else or broken, Mismatch if it has rows of
    another backbone, which no report could show together.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self._rows: list[Row] = []
        self._known: dict[Row, Row] = {}
        if path.exists():
            drop_torn_line(path)
        runs = read_rows(path) if path.exists() and path.stat().st_size else []
        _check_fingerprint(path, runs, header)
        if runs and runs[-1].header.more.get("plan") == header.more["plan"]:
            self._start = _offset_of_last(path, runs)
            self._known = {_place(row): row for row in runs[-1].rows}
        else:
            append(path, [header.line()])
            self._start = path.stat().st_size - len(header.line().encode())

    def __len__(self) -> int:
        """How many rows of this plan the file had."""
        return len(self._known)

    def add(self, rows: Sequence[Row]) -> None:
        """Append what the file lacks. If it says otherwise than now, something changed: the plan's rows start anew."""
        self._rows += rows
        if any(self._known.get(_place(row), row) != row for row in rows):
            self._known = {}
            before = self.path.read_bytes()[: self._start]
            write_bytes(self.path, before + "".join([self.header.line(), *map(row_line, self._rows)]).encode())
            return
        if new := [row for row in rows if _place(row) not in self._known]:
            append(self.path, map(row_line, new))


def _place(row: Row) -> Row:
    return replace(row, value=0.0, hits="")


def _check_fingerprint(path: Path, runs: Sequence[Run], header: Header) -> None:
    own = header.more.get("fingerprint")
    for other in (run.header.more.get("fingerprint", own) for run in runs):
        if other != own:
            raise Mismatch(
                f"{path} has rows of a backbone with fingerprint {other}, this one has {own}",
                "name another file with --rows",
            )


def _offset_of_last(path: Path, runs: Sequence[Run]) -> int:
    lines = path.read_bytes().splitlines(keepends=True)
    return sum(map(len, lines[: len(lines) - len(runs[-1].rows) - 1]))


@contextmanager
def log_of(path: Path | None, header: Header) -> Iterator[Log]:
    """The log at `path`; without one, the plan's own in the user cache. Another process that measures into it waits,
    and then finds these rows."""
    path = path or cache_folder() / "rows" / f"{header.more['plan']}.jsonl"
    with locked(path):
        yield Log(path, header)
