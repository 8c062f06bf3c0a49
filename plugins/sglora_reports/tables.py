"""A report as tables of cells: retrieval and classification apart, all tasks together, then each data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sglora_cli.api import Report, averages, build_ranges, is_clear, recovery, spreads

from .paper import published

Cell = tuple[str, int]
REFERENCES = ("chance", "oracle")
"""Stand apart: no method of the unseen task's sentence alone."""
BEST, SECOND = "best", "second"


@dataclass(frozen=True)
class Line:
    """One method: its cells, and which are the best and the second of their column."""

    method: str
    cells: Sequence[str]
    marks: Sequence[str]


@dataclass(frozen=True)
class Section:
    """One table."""

    title: str
    header: Sequence[str]
    references: Sequence[Line]
    methods: Sequence[Line]
    findings: Sequence[str] = ()

    @property
    def lines(self) -> list[Line]:
        return [*self.references, *self.methods]


def cell_name(cell: Cell) -> str:
    return "accuracy" if cell[0] == "ACC" else f"{cell[0]} R@{cell[1]}"


def sections(report: Report) -> list[Section]:
    """All tables of a report."""
    found = []
    kinds = [[row for row in report.rows if (row.direction == "ACC") == accuracy] for accuracy in (False, True)]
    for rows, kind in zip(kinds, ("retrieval", "classification"), strict=True):
        datasets = list(dict.fromkeys(row.dataset for row in rows))
        part = replace(report, rows=rows)
        name = kind if all(kinds) else "all"
        if len(datasets) > 1:
            found.append(_section(part, name, "", whole=True))
        found += [_section(part, dataset, dataset, whole=len(datasets) == 1) for dataset in datasets]
    return found


def _section(report: Report, name: str, dataset: str, whole: bool) -> Section:
    average = averages(report.rows, dataset)
    cells = sorted({(r.direction, r.k) for r in report.rows}, key=lambda cell: ("I2T T2I ACC".index(cell[0]), cell[1]))
    first = [cell for cell in cells if cell[1] == 1]
    header = ["method", *map(cell_name, cells)]
    if whole:
        header += [f"{cell_name(cell)} - {report.against}" for cell in first] + ["recovery"]
    paper = published(report, dataset)
    lines = []
    for method, label in report.labels.items():
        if method in average:
            shown = [_cell(average[method].get(cell), paper.get((method, cell))) for cell in cells]
            more = _comparison(report, average, method, first) if whole else []
            marks = ["", *(_mark(average, method, cell) for cell in cells), *("" for _ in more)]
            lines.append(Line(method, [label, *shown, *more], marks))
    return Section(
        f"{name}: {report.tasks(dataset)}",
        header,
        [line for line in lines if line.method in REFERENCES],
        [line for line in lines if line.method not in REFERENCES],
        [*findings(report, first), *(ranges if report.builds else draws)(report, dataset, first)] if whole else (),
    )


def _cell(value: float | None, paper: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if paper is None else f"{value:.1f} ({paper:.2f}, {value - paper:+.1f})"


def _mark(average: Mapping[str, Mapping[Cell, float]], method: str, cell: Cell) -> str:
    """By what is printed: equal figures share a mark."""
    if method in REFERENCES or cell not in average[method]:
        return ""
    values = {round(own[cell], 1) for name, own in average.items() if name not in REFERENCES and cell in own}
    ranked = sorted(values, reverse=True)
    place = ranked.index(round(average[method][cell], 1))
    return (BEST, SECOND)[place] if place < 2 and len(ranked) > 1 else ""


def _comparison(
    report: Report, average: Mapping[str, Mapping[Cell, float]], method: str, first: Sequence[Cell]
) -> list[str]:
    cells = []
    for cell in first:
        gap = report.differences.get((method, *cell))
        cells.append(f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]" if gap and method != report.against else "")
    shares = [recovery(average, method, cell) for cell in first if cell in average[method]]
    known = [f"{share:.2f}" for share in shares if share is not None]
    return [*cells, " / ".join(known) if known and len(known) == len(shares) else ""]


def findings(report: Report, first: Sequence[Cell]) -> list[str]:
    """Who is better or worse than `against`: said only where the interval is clear of zero."""
    found, rival = [], report.labels.get(report.against, report.against)
    for cell in first:
        gaps = {m: gap for m in report.labels if m != report.against and (gap := report.differences.get((m, *cell)))}
        clear = {m: gap for m, gap in gaps.items() if is_clear(gap)}
        parts = [
            f"{word} than {rival}: " + ", ".join(f"{report.labels[m]} ({gap[0]:+.1f})" for m, gap in some.items())
            for word, sign in (("better", 1), ("worse", -1))
            if (some := {m: gap for m, gap in clear.items() if gap[0] * sign > 0})
        ]
        if rest := [report.labels[m] for m in gaps if m not in clear]:
            parts.append(f"cannot be told from {rival}: {', '.join(rest)}")
        if parts:
            found.append(f"{cell_name(cell)}: {'; '.join(parts)}.")
    return found


def draws(report: Report, dataset: str, first: Sequence[Cell]) -> list[str]:
    """How much it matters which of a method's draws a user gets."""
    found = []
    for method, by_cell in spreads(report.rows, dataset).items():
        parts = [
            f"{cell_name(cell)} {by_cell[cell].worst:.1f} to {by_cell[cell].best:.1f} "
            f"(deviation {by_cell[cell].deviation:.2f})"
            for cell in first
            if cell in by_cell
        ]
        count = max(spread.draws for spread in by_cell.values())
        label = report.labels.get(method, method)
        found.append(f"{label}, from each task's worst to its best of {count} draws: {', '.join(parts)}.")
    return found


def ranges(report: Report, dataset: str, first: Sequence[Cell]) -> list[str]:
    """How far apart builds are in what a method finds."""
    found = []
    for method, by_cell in build_ranges(report.rows, dataset).items():
        parts = [
            f"{cell_name(cell)} {by_cell[cell][0]:.1f} to {by_cell[cell][1]:.1f}" for cell in first if cell in by_cell
        ]
        label = report.labels.get(method, method)
        found.append(f"{label}, lowest to highest of {len(report.builds)} builds: {', '.join(parts)}.")
    return found


def legend(report: Report) -> str:
    kinds = {row.direction == "ACC" for row in report.rows}
    measures = ["R@k: recall in percent."] * (False in kinds) + ["accuracy: in percent, of the first guess."] * (
        True in kinds
    )
    at = "; ".join(["at R@1, I2T / T2I"] * (False in kinds) + ["of accuracy"] * (True in kinds))
    drawn = "tasks, queries, builds and draws" if report.builds else "tasks, queries, seeds and samples"
    return (
        f"{' '.join(measures)} '- {report.against}': mean difference with its 95 % interval, paired bootstrap over "
        f"{drawn}. recovery: (method - zero-shot) / (Oracle - zero-shot) {at}. "
        "Chance and the Oracle, which saw the task's own photos, stand apart."
    )
