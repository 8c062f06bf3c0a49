"""Rows -> tables: means over tasks, differences with their intervals, and which cells are best. No torch.

Every reporter and page takes its tables from here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sglora_cli.bench.bootstrap import Interval, is_clear
from sglora_cli.bench.rows import averages, build_ranges
from sglora_cli.plugin.values import Report, Row

Table = list[list[str]]
"""Rows of cells, the header first."""
GAIN_K = 1  # the paper compares R@1
UNTRAINED, CEILING, FLOOR = "zero-shot", "oracle", "chance"


def measure(direction: str, k: int = GAIN_K) -> str:
    """`I2T R@1 (%)`, or `Accuracy (%)`."""
    return "Accuracy (%)" if direction == "ACC" else f"{direction} R@{k} (%)"


def only(report: Report, direction: str, k: int) -> list[Row]:
    """The rows of one direction and k."""
    return [row for row in report.rows if (row.direction, row.k) == (direction, k)]


def directions(report: Report) -> list[str]:
    """The directions that were measured, in the order of the rows."""
    return list(dict.fromkeys(row.direction for row in report.rows))


def _cells(report: Report, dataset: str = "") -> list[tuple[str, int]]:
    """Every direction and k that was measured on a data set, or on any."""
    measured = {(row.direction, row.k) for row in report.rows if dataset in ("", row.dataset)}
    return [(d, k) for d in directions(report) for k in sorted(k for direction, k in measured if direction == d)]


def results(report: Report, dataset: str = "") -> Table:
    """Means over the tasks of a data set, or of all: a row a method, a column a direction and k; header first."""
    cells = _cells(report, dataset)
    means = {cell: averages(only(report, *cell), dataset) for cell in cells}
    body = [["method", *(measure(*cell).removesuffix(" (%)") for cell in cells)]]
    for method, label in report.labels.items():
        values = [means[cell].get(method, {}).get(cell) for cell in cells]
        if any(value is not None for value in values):
            body.append([label, *("" if value is None else f"{value:.2f}" for value in values)])
    return body


def ranges(report: Report, dataset: str = "") -> Table:
    """The lowest and the highest build of every mean in `results`; header first."""
    cells = _cells(report, dataset)
    lowest_highest = {cell: build_ranges(only(report, *cell), dataset) for cell in cells}
    body = [["method", *(measure(*cell).removesuffix(" (%)") for cell in cells)]]
    for method, label in report.labels.items():
        ends = [lowest_highest[cell].get(method, {}).get(cell) for cell in cells]
        if any(ends):
            body.append([label, *(f"{end[0]:.2f} to {end[1]:.2f}" if end else "" for end in ends)])
    return body


def comparison(report: Report) -> Table:
    """Mean differences to `against` with their intervals; header first."""
    cells = [cell for cell in _cells(report) if any(key[1:] == cell for key in report.differences)]
    body = [["method", *(measure(*cell).removesuffix(" (%)") for cell in cells)]]
    for method, label in report.labels.items():
        gaps = [report.differences.get((method, *cell)) for cell in cells]
        if method != report.against and any(gaps):
            body.append([label, *(_gap(gap) if gap else "" for gap in gaps)])
    return body


def reference_labels(report: Report) -> set[str]:
    """Labels of what does not compete."""
    return {report.labels[name] for name in (CEILING, FLOOR) if name in report.labels}


Marks = Mapping[tuple[int, int], str]
"""(row, column) of a table to the tag that marks the cell."""


def best_marks(body: Table, aside: Collection[str]) -> dict[tuple[int, int], str]:
    """The best number of each column bold, the second underlined, as they are printed; `aside` does not compete."""
    marks: dict[tuple[int, int], str] = {}
    for column in range(1, len(body[0])):
        cells = {n: row[column] for n, row in enumerate(body) if n and row[column] and row[0] not in aside}
        for tag, value in zip("bu", sorted(set(cells.values()), key=float, reverse=True), strict=False):
            marks |= {(n, column): tag for n, cell in cells.items() if cell == value}
    return marks


def clear_marks(report: Report, body: Table) -> dict[tuple[int, int], str]:
    """The differences whose interval is clear of zero, bold, in a table of `comparison`."""
    clear = {_gap(gap) for gap in report.differences.values() if is_clear(gap)}
    return {(n, i): "b" for n, row in enumerate(body) for i, cell in enumerate(row) if cell in clear}


def _gap(gap: Interval) -> str:
    return f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]"
