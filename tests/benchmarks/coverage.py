"""How often the 95 % interval holds the truth: `python tests/benchmarks/coverage.py`.

Two methods whose true difference is 5 points on every task, give or take `spread` from task to task; their hits
on a query are alike in 7 of 10 cases. Of 150 such experiments: how many intervals contain the 5, and their
mean width, with queries drawn inside tasks and without hits, so that only tasks are drawn.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sglora_cli.bench.bootstrap import bootstrap
from sglora_cli.bench.rows_file import pack_hits
from sglora_cli.plugin.values import Row

TRUTH, EXPERIMENTS, RESAMPLES = 5.0, 150, 500


def experiment(dice: np.random.Generator, tasks: int, queries: int, spread: float) -> list[Row]:
    rows = []
    for t in range(tasks):
        base = np.clip(dice.normal(0.3, 0.1), 0.05, 0.9)
        luck_Q = dice.random(queries)
        other_Q = np.where(dice.random(queries) < 0.7, luck_Q, dice.random(queries))
        for method, hit_Q in (("a", luck_Q < base), ("b", other_Q < base + dice.normal(TRUTH / 100, spread))):
            value = 100 * float(hit_Q.mean())
            rows.append(Row(method, "d", f"t{t}", 0, "I2T", 1, value, 0, pack_hits(hit_Q.tolist())))
    return rows


def main() -> None:
    dice = np.random.default_rng(0)
    for tasks, queries, spread in ((22, 15, 0.0), (22, 15, 0.1), (22, 30, 0.1), (5, 30, 0.1), (1, 100, 0.0)):
        gaps_X2 = []
        for _ in range(EXPERIMENTS):
            rows = experiment(dice, tasks, queries, spread)
            bare = [replace(row, hits="") for row in rows]
            gaps_X2.append([bootstrap(some, RESAMPLES).difference(("b", "I2T", 1), "a") for some in (rows, bare)])
        said = []
        for which, name in enumerate(("tasks and queries", "tasks only")):
            held = sum(pair[which][1] <= TRUTH <= pair[which][2] for pair in gaps_X2) / EXPERIMENTS
            width = sum(pair[which][2] - pair[which][1] for pair in gaps_X2) / EXPERIMENTS
            said.append(f"{name} {held:.2f} (width {width:.1f})")
        print(f"{tasks} tasks of {queries} queries, spread {100 * spread:.0f} points: {', '.join(said)}")


if __name__ == "__main__":
    main()
