"""How often the 95 % interval holds the truth: `python tests/benchmarks/coverage.py`.

Two methods whose true difference is 5 points on every task, give or take `spread` from task to task; their hits
on a query are alike in 7 of 10 cases. Of 150 such experiments: how many intervals contain the 5, and their
mean width, with queries drawn inside tasks and without hits, so that only tasks are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sglora_cli.bench.bootstrap import bootstrap
from sglora_cli.bench.rows_file import pack_hits
from sglora_cli.plugin.values import Row

TRUTH, EXPERIMENTS, RESAMPLES = 5.0, 150, 500
SETTINGS = ((22, 15, 0.0), (22, 15, 0.1), (22, 30, 0.1), (5, 30, 0.1), (1, 100, 0.0))
"""Tasks, queries of each, spread of the true difference."""


@dataclass(frozen=True)
class Coverage:
    """The share of intervals that contain the true difference, and their mean width in points."""

    share: float
    width: float


def experiment(rng: np.random.Generator, tasks: int, queries: int, spread: float) -> list[Row]:
    rows = []
    for t in range(tasks):
        base = np.clip(rng.normal(0.3, 0.1), 0.05, 0.9)
        luck_Q = rng.random(queries)
        other_Q = np.where(rng.random(queries) < 0.7, luck_Q, rng.random(queries))
        for method, hit_Q in (("a", luck_Q < base), ("b", other_Q < base + rng.normal(TRUTH / 100, spread))):
            value = 100 * float(hit_Q.mean())
            rows.append(Row(method, "d", f"t{t}", 0, "I2T", 1, value, 0, pack_hits(hit_Q.tolist())))
    return rows


def coverage(
    rng: np.random.Generator, tasks: int, queries: int, spread: float, experiments: int, resamples: int
) -> tuple[Coverage, Coverage]:
    """With tasks and queries drawn, and with tasks drawn only."""
    bounds_X2 = []
    for _ in range(experiments):
        rows = experiment(rng, tasks, queries, spread)
        bare = [replace(row, hits="") for row in rows]
        bounds_X2.append([bootstrap(some, resamples).difference(("b", "I2T", 1), "a")[1:] for some in (rows, bare)])
    low_X2, high_X2 = np.moveaxis(np.array(bounds_X2), -1, 0)
    share_2, width_2 = ((low_X2 <= TRUTH) & (high_X2 >= TRUTH)).mean(axis=0), (high_X2 - low_X2).mean(axis=0)
    return Coverage(float(share_2[0]), float(width_2[0])), Coverage(float(share_2[1]), float(width_2[1]))


def main() -> None:
    rng = np.random.default_rng(0)
    for tasks, queries, spread in SETTINGS:
        both, tasks_only = coverage(rng, tasks, queries, spread, EXPERIMENTS, RESAMPLES)
        print(
            f"{tasks} tasks of {queries} queries, spread {100 * spread:.0f} points:"
            f" tasks and queries {both.share:.2f} (width {both.width:.1f}),"
            f" tasks only {tasks_only.share:.2f} (width {tasks_only.width:.1f})"
        )


if __name__ == "__main__":
    main()
