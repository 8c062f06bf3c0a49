"""Aggregates rows. No torch, because reporters import this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev

from sglora_cli.plugin.values import ORACLE, ZERO, Row

Cell = tuple[str, int]
"""(direction, k)"""


def row_key(row: Row) -> tuple[object, ...]:
    """Return what a row measures. Rows with the same key are repeated measurements of one number."""
    return row.method, row.dataset, row.task, row.sample, row.seed, row.direction, row.k, row.sentence


def table(rows: Sequence[Row], dataset: str = "") -> dict[str, dict[tuple[str, str], dict[Cell, float]]]:
    """Return method -> (dataset, task) -> cell -> recall, averaged over samples."""
    values: dict[str, dict[tuple[str, str], dict[Cell, list[float]]]] = {}
    for row in rows:
        if dataset in ("", row.dataset):
            cells = values.setdefault(row.method, {}).setdefault((row.dataset, row.task), {})
            cells.setdefault((row.direction, row.k), []).append(row.value)
    return {
        method: {task: {c: sum(v) / len(v) for c, v in cells.items()} for task, cells in by_task.items()}
        for method, by_task in values.items()
    }


def averages(rows: Sequence[Row], dataset: str = "") -> dict[str, dict[Cell, float]]:
    """Return method -> cell -> recall or accuracy, averaged over the tasks that have it with equal weights."""
    values: dict[str, dict[Cell, list[float]]] = {}
    for method, by_task in table(rows, dataset).items():
        for cells in by_task.values():
            for cell, value in cells.items():
                values.setdefault(method, {}).setdefault(cell, []).append(value)
    return {method: {c: sum(v) / len(v) for c, v in cells.items()} for method, cells in values.items()}


@dataclass(frozen=True)
class Spread:
    """Variation between a method's draws, averaged over tasks: the worst, the best and the standard deviation."""

    draws: int
    """The largest number of draws of a task."""
    worst: float
    best: float
    deviation: float


def spreads(rows: Sequence[Row], dataset: str = "") -> dict[str, dict[Cell, Spread]]:
    """Return method -> cell -> spread, for methods with more than one draw for a task."""
    draws: dict[str, dict[Cell, dict[tuple[str, str], list[float]]]] = {}
    for row in rows:
        if dataset in ("", row.dataset):
            cells = draws.setdefault(row.method, {}).setdefault((row.direction, row.k), {})
            cells.setdefault((row.dataset, row.task), []).append(row.value)
    return {
        method: {cell: _spread(list(by_task.values())) for cell, by_task in cells.items()}
        for method, cells in draws.items()
        if any(len(values) > 1 for by_task in cells.values() for values in by_task.values())
    }


def build_ranges(rows: Sequence[Row], dataset: str = "") -> dict[str, dict[Cell, tuple[float, float]]]:
    """Return method -> cell -> the lowest and highest average of any build. A row's seed is its build."""
    builds = [averages([row for row in rows if row.seed == n], dataset) for n in sorted({row.seed for row in rows})]
    ranges: dict[str, dict[Cell, tuple[float, float]]] = {}
    for method, cells in averages(rows, dataset).items():
        values = {cell: [build[method][cell] for build in builds if cell in build.get(method, {})] for cell in cells}
        ranges[method] = {cell: (min(several), max(several)) for cell, several in values.items()}
    return ranges


def _spread(by_task: Sequence[Sequence[float]]) -> Spread:
    return Spread(
        draws=max(len(values) for values in by_task),
        worst=sum(min(values) for values in by_task) / len(by_task),
        best=sum(max(values) for values in by_task) / len(by_task),
        deviation=sum(pstdev(values) for values in by_task) / len(by_task),
    )


def recovery(average: Mapping[str, Mapping[Cell, float]], method: str, cell: Cell) -> float | None:
    """Return (method - zero-shot) / (Oracle - zero-shot).

    Returns None if the Oracle gains less than one point, because the ratio would be noise.
    """
    if not {ZERO, ORACLE, method} <= set(average):
        return None
    zero, oracle = average[ZERO][cell], average[ORACLE][cell]
    return (average[method][cell] - zero) / (oracle - zero) if oracle - zero >= 1 else None
