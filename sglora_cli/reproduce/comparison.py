"""Measured numbers beside the paper's, as tables and as JSON. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sglora_cli.bench.paper import paper_numbers
from sglora_cli.bench.rows import Cell, averages
from sglora_cli.bench.rows_file import read_rows
from sglora_cli.bench.tables import cell_name
from sglora_cli.errors import SgloraError
from sglora_cli.files.escape import markdown_text
from sglora_cli.files.text import read_json
from sglora_cli.plugin.values import CHANCE, Row
from sglora_cli.reproduce.job import Job
from sglora_cli.reproduce.targets import Line, Table
from sglora_cli.system.display import counted

_KS = (1, 5, 10)
_NONE = "-"


@dataclass(frozen=True)
class Number:
    """A measured number and the paper's, each None if there is none."""

    measured: float | None
    paper: float | None

    @property
    def difference(self) -> float | None:
        """The measured number minus the paper's."""
        return None if self.measured is None or self.paper is None else self.measured - self.paper

    def cells(self, digits: int) -> list[str]:
        """Return the measured number, the paper's and the difference as text.

        >>> Number(74.5, 74.31).cells(2), Number(None, 0.5).cells(1)
        (['74.50', '74.31', '+0.19'], ['-', '0.5', '-'])
        """
        plain = [_NONE if value is None else f"{value:.{digits}f}" for value in (self.measured, self.paper)]
        return [*plain, _NONE if self.difference is None else f"{self.difference:+.{digits}f}"]

    def to_json(self) -> dict[str, float | None]:
        """The number as JSON values."""
        rounded = (None if value is None else round(value, 4) for value in (self.measured, self.paper, self.difference))
        return dict(zip(("measured", "paper", "difference"), rounded, strict=True))


@dataclass(frozen=True)
class Block:
    """A table of one direction, with a line per method and a number per column."""

    title: str
    tasks: int
    """Number of measured tasks."""
    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[Number]]]
    digits: int = 2

    @property
    def has_paper(self) -> bool:
        """Whether the paper prints any of its numbers."""
        return any(one.paper is not None for _, numbers in self.lines for one in numbers)

    def rows(self) -> list[list[str]]:
        """Return the cells, with the header first. If the paper prints nothing, they are the measured numbers only."""
        most = 3 if self.has_paper else 1
        header = ["", *(text for column in self.columns for text in (column, "paper", "difference")[:most])]
        cells = ([label, *(c for n in numbers for c in n.cells(self.digits)[:most])] for label, numbers in self.lines)
        return [header, *cells]

    def to_json(self) -> dict[str, Any]:
        """The block as JSON values."""
        lines = [{"label": label, "numbers": [one.to_json() for one in numbers]} for label, numbers in self.lines]
        return {"title": self.title, "tasks": self.tasks, "columns": list(self.columns), "lines": lines}


@dataclass(frozen=True)
class Comparison:
    """The blocks of a target, with notes for readers."""

    target: str
    title: str
    blocks: Sequence[Block]
    notes: Sequence[str]
    warning: str = ""
    """The reason why the numbers are not comparable with the paper's, or "" if they are."""

    def to_text(self) -> str:
        """Return the comparison as columns of text."""
        source = paper_numbers()["source"].partition(":")[0]
        lines = [f"{self.target}: {self.title}"]
        if any(block.has_paper for block in self.blocks):
            lines.append(f"measured, and what the paper prints: {source}")
        lines += [self.warning] * bool(self.warning)
        for block in self.blocks:
            rows = block.rows()
            widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
            lines += ["", _heading(block)]
            for row in rows:
                cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
                lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, "", *self.notes]) + "\n"

    def to_markdown(self) -> str:
        """Return the comparison as Markdown tables."""
        lines = [f"# {markdown_text(f'{self.target}: {self.title}')}", ""]
        lines += [f"**{markdown_text(self.warning)}**", ""] if self.warning else []
        for block in self.blocks:
            header, *rows = ([*map(markdown_text, row[:1]), *row[1:]] for row in block.rows())
            lines += [f"**{markdown_text(_heading(block))}**", "", _row(header), "|---" * len(header) + "|"]
            lines += [*map(_row, rows), ""]
        return "\n".join([*lines, *(f"* {markdown_text(note)}" for note in self.notes)]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "target": self.target,
            "title": self.title,
            "comparable": not self.warning,
            "warning": self.warning or None,
            "tables": [block.to_json() for block in self.blocks],
            "notes": list(self.notes),
        }


def _heading(block: Block) -> str:
    tasks = f" ({counted(block.tasks, 'task')})" if block.tasks else ""
    return f"{block.title}{tasks}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def comparison_of(job: Job, warning: str = "") -> Comparison:
    """Compare all measurements of a job with the paper. Numbers of missing files are missing."""
    rows = {one.name: _rows(job, one.name) for one in job.target.measurements}
    blocks = [block for table in job.target.tables for block in _blocks(job, table, rows)]
    return Comparison(job.target.name, job.target.title, blocks, job.target.notes, warning)


def _rows(job: Job, name: str) -> tuple[Mapping[str, str], Sequence[Row]]:
    """Return the labels of the methods and the rows."""
    path = job.rows_file(name)
    if not path.exists():
        return {}, ()
    run = read_rows(path)[-1]
    return run.header.labels, [row for row in run.rows if not row.sentence]


def _blocks(job: Job, table: Table, rows: Mapping[str, tuple[Mapping[str, str], Sequence[Row]]]) -> Iterator[Block]:
    if table.lean:
        yield _leaning(job, table)
        return
    lines = table.lines or tuple(
        Line(label, table.every, method) for method, label in rows[table.every][0].items() if method != CHANCE
    )
    own = {line: _of(line, rows[line.rows][1]) for line in lines}
    means = {line: averages(some).get(line.method, {}) for line, some in own.items()}
    printed = {line: _printed(line) for line in lines}
    cells = dict.fromkeys(cell for numbers in (*means.values(), *printed.values()) for cell in numbers)
    for direction in dict.fromkeys(direction for direction, _ in cells):
        columns = sorted(cell for cell in cells if cell[0] == direction)
        tasks = {(row.dataset, row.task) for some in own.values() for row in some if row.direction == direction}
        yield Block(
            f"{table.title}: {_DIRECTIONS[direction]}",
            len(tasks),
            [cell_name(cell).removeprefix(f"{direction} ") for cell in columns],
            [(line.label, [Number(means[line].get(c), printed[line].get(c)) for c in columns]) for line in lines],
        )


_DIRECTIONS = {"I2T": "image to text", "T2I": "text to image", "ACC": "accuracy"}


def _of(line: Line, rows: Sequence[Row]) -> list[Row]:
    return [
        row
        for row in rows
        if row.method == line.method and line.dataset in ("", row.dataset) and line.task in ("", row.task)
    ]


def _printed(line: Line) -> dict[Cell, float]:
    """Return the paper's numbers for a line."""
    content: Any = paper_numbers()
    for key in line.paper:
        content = content[key]
    if not line.paper:
        return {}
    return {(d, k): value for d, values in content.items() for k, value in zip(_KS, values, strict=False)}


def _leaning(job: Job, table: Table) -> Block:
    (lean,) = (one for one in job.target.leans if one.name == table.lean)
    printed = paper_numbers()["contributions"].get(lean.task, {})
    path = job.lean_file(lean.name)
    measured: Mapping[str, float] = {}
    try:
        measured = read_json(path)["weights"] if path.exists() else {}
    except (SgloraError, KeyError, TypeError):
        measured = {}
    known = sorted({**printed, **measured}, key=lambda name: -max(measured.get(name, 0.0), printed.get(name, 0.0)))
    lines = [(name, [Number(measured.get(name), printed.get(name))]) for name in known]
    return Block(table.title, 0, ["weight"], lines, digits=4)
