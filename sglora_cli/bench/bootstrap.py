"""Confidence intervals of a table: a bootstrap over everything that could have been drawn differently. No torch.

A resample draws with replacement as many tasks as there are, then as many queries as each drawn task has, then
as many seeds as there are (the same for all tasks and methods), then as many samples as a method has for each seed.
All methods share the drawn tasks and queries, so their differences are paired. Something measured once, such as a
single seed, does not vary, so an interval only covers the randomness that was sampled. Rows without hits have no
queries to draw, but their tasks are still drawn.

Queries inside drawn tasks count the randomness of queries twice, so with many small tasks an interval is too wide
rather than too narrow. tests/benchmarks/coverage.py measures the coverage.

Shapes: B resamples, T tasks, Q queries of a task, S draws (seed, sample) of a method, n resamples at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sglora_cli.bench.rows_file import unpack_hits
from sglora_cli.plugin.values import Row

Floats = NDArray[np.float64]
Interval = tuple[float, float, float]
"""Mean, and the ends of its 95 % confidence interval."""
MethodCell = tuple[str, str, int]
"""(method, direction, k)"""
Draw = tuple[int, int]
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Bootstrap:
    """Each cell's average over tasks, as measured and in B resamples."""

    measured: Mapping[MethodCell, float]
    resampled_B: Mapping[MethodCell, Floats]
    without_hits: frozenset[str]
    """Methods for which only tasks could be resampled, not queries."""

    def difference(self, cell: MethodCell, against: str) -> Interval:
        """Return the difference between the cell's method and `against`, in percentage points."""
        other = (against, *cell[1:])
        gap_B = self.resampled_B[cell] - self.resampled_B[other]
        return _interval(self.measured[cell] - self.measured[other], gap_B)

    def differences(self, against: str, references: Mapping[str, str] | None = None) -> dict[MethodCell, Interval]:
        """Return the difference of every method to `against`, or to its own entry in `references`."""
        rivals = {cell: (references or {}).get(cell[0], against) for cell in self.measured}
        return {cell: self.difference(cell, rivals[cell]) for cell in rivals if (rivals[cell], *cell[1:]) in rivals}


def is_clear(gap: Interval) -> bool:
    """Return whether the interval excludes zero. Only then may a method be called better or worse."""
    return gap[1] > 0 or gap[2] < 0


def bootstrap(rows: Sequence[Row], resamples: int = 10_000, seed: int = 0) -> Bootstrap:
    """Resample the averages of all methods.

    For each direction, only tasks on which every method was measured count.
    """
    measured: dict[MethodCell, float] = {}
    resampled_B: dict[MethodCell, Floats] = {}
    without: set[str] = set()
    for direction in dict.fromkeys(row.direction for row in rows):
        table = _Table([row for row in rows if row.direction == direction])
        without |= table.without_hits
        values = _resample(table, resamples, np.random.default_rng([seed, len(measured)]))
        for (method, k), value_B in values.items():
            resampled_B[method, direction, k] = value_B
            measured[method, direction, k] = table.average(method, k)
    return Bootstrap(measured, resampled_B, frozenset(without))


class _Table:
    """Rows of one direction by task, method and k, each (S, Q) in percent."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.values: dict[tuple[tuple[str, str], str, int], dict[Draw, Row]] = {}
        for row in rows:
            draws = self.values.setdefault(((row.dataset, row.task), row.method, row.k), {})
            draws[row.seed, row.sample] = row
        self.cells = list(dict.fromkeys((row.method, row.k) for row in rows))
        tasks = dict.fromkeys((row.dataset, row.task) for row in rows)
        self.tasks = [task for task in tasks if all((task, *cell) in self.values for cell in self.cells)]
        self.seeds = sorted({row.seed for row in rows})
        self.queries = {task: self._queries(task) for task in self.tasks}
        self.without_hits = {m for m, k in self.cells for t in self.tasks if self._count(t, m, k) is None}

    def draws(self, task: tuple[str, str], method: str, k: int) -> list[Draw]:
        return sorted(self.values[task, method, k])

    def _count(self, task: tuple[str, str], method: str, k: int) -> int | None:
        """Return Q, or None unless every draw has hits for the same number of queries."""
        counts = {row.hits.partition(":")[0] for row in self.values[task, method, k].values()}
        return int(counts.pop()) if len(counts) == 1 and "" not in counts else None

    def _queries(self, task: tuple[str, str]) -> int:
        """Return the number of queries that most methods were measured on, or 1 where no hits are stored."""
        counts = [q for m, k in self.cells if (q := self._count(task, m, k))]
        return max(set(counts), key=counts.count) if counts else 1

    def percent_SQ(self, task: tuple[str, str], method: str, k: int) -> Floats:
        rows, queries = self.values[task, method, k], self.queries[task]
        draws = self.draws(task, method, k)
        if self._count(task, method, k) == queries:
            return np.array([unpack_hits(rows[d].hits) for d in draws], dtype=np.float64) * 100
        return np.array([[rows[d].value] * queries for d in draws], dtype=np.float64)

    def average(self, method: str, k: int) -> float:
        """Average over the draws of each task, then over tasks."""
        per_task = [[row.value for row in self.values[task, method, k].values()] for task in self.tasks]
        return float(np.mean([np.mean(values) for values in per_task])) if per_task else float("nan")


def _resample(table: _Table, resamples: int, rng: np.random.Generator) -> dict[tuple[str, int], Floats]:
    sums: dict[tuple[str, int], Floats] = {cell: np.zeros(resamples) for cell in table.cells}
    if not table.tasks:
        return {}
    drawn_BT = rng.integers(len(table.tasks), size=(resamples, len(table.tasks)))
    seeds_BG = _counts(rng, resamples, len(table.seeds))
    draws_BS: dict[tuple[str, tuple[Draw, ...]], Floats] = {}
    for t, task in enumerate(table.tasks):
        owner = np.nonzero(drawn_BT == t)[0]  # the resamples with this task, once per time it was drawn
        queries = table.queries[task]
        percents = {cell: table.percent_SQ(task, *cell) for cell in table.cells}
        for method, k in table.cells:  # the same weights for every task and k
            key = method, tuple(table.draws(task, method, k))
            if key not in draws_BS:
                draws_BS[key] = _draw_weights(rng, key[1], table.seeds, seeds_BG)
        step = max(1, _AT_ONCE // queries)
        for first in range(0, len(owner), step):
            part_n = owner[first : first + step]
            weight_nQ = _counts(rng, len(part_n), queries) / queries
            for (method, k), percent_SQ in percents.items():
                weight_nS = draws_BS[method, tuple(table.draws(task, method, k))][part_n]
                value_n = ((weight_nQ @ percent_SQ.T) * weight_nS).sum(axis=1)
                np.add.at(sums[method, k], part_n, value_n / len(table.tasks))
    return sums


def _counts(rng: np.random.Generator, rows: int, size: int) -> Floats:
    """Return (rows, size): how often each of `size` items occurs in `size` draws."""
    if size == 1:
        return np.ones((rows, 1))
    drawn = rng.integers(size, size=(rows, size), dtype=np.int64) + size * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)


def _draw_weights(rng: np.random.Generator, draws: Sequence[Draw], seeds: Sequence[int], seeds_BG: Floats) -> Floats:
    """Return (B, S) weights of a method's draws: each seed's count, split over a resample of its samples."""
    parts = []
    for seed in dict.fromkeys(seed for seed, _ in draws):
        samples = sum(s == seed for s, _ in draws)
        parts.append(_counts(rng, len(seeds_BG), samples) / samples * seeds_BG[:, [seeds.index(seed)]])
    weight_BS: Floats = np.concatenate(parts, axis=1)
    weight_BS[weight_BS.sum(axis=1) == 0] = 1  # none of this method's seeds was drawn: all draws count alike
    total_B1: Floats = weight_BS.sum(axis=1, keepdims=True)
    return weight_BS / total_B1


def _interval(mean: float, value_B: Floats) -> Interval:
    low, high = np.quantile(value_B, [0.025, 0.975])
    return mean, float(low), float(high)
