"""The bootstrap against itself written as loops, and where its answer is known."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.coverage import SETTINGS, coverage

from sglora_cli.bench.bootstrap import Bootstrap, bootstrap, is_clear
from sglora_cli.bench.rows_file import pack_hits
from sglora_cli.plugin.values import Row


def measured(method: str, task: str, hits: list[bool], sample: int = 0, seed: int = 0) -> Row:
    value = 100 * sum(hits) / len(hits)
    return Row(method, "d", task, sample, "I2T", 1, value, seed, pack_hits(hits))


@pytest.fixture
def rows() -> list[Row]:
    """Two methods, 5 tasks of 6 to 10 queries; x has two seeds of three samples, top-k one draw a seed."""
    rng, measurements = random.Random(0), []
    for t in range(5):
        queries = 6 + t
        for seed in range(2):
            base = [rng.random() < 0.2 + 0.1 * t for _ in range(queries)]
            measurements.append(measured("top-k", f"t{t}", base, seed=seed))
            for sample in range(3):
                better = [hit or rng.random() < 0.1 + 0.1 * seed for hit in base]
                measurements.append(measured("x", f"t{t}", better, sample, seed))
    return measurements


def slowly(rows: list[Row], resamples: int) -> list[float]:
    """Sorted resampled differences x - top-k, one draw of everything at a time."""
    from sglora_cli.bench.rows_file import unpack_hits

    rng, tasks = random.Random(1), sorted({row.task for row in rows})
    hits = {(r.method, r.task, r.seed, r.sample): unpack_hits(r.hits) for r in rows}
    gaps = []
    for _ in range(resamples):
        draws = [rng.randrange(2) for _ in range(2)]
        chosen = {
            "top-k": {seed: [0] for seed in (0, 1)},
            "x": {seed: [rng.randrange(3) for _ in range(3)] for seed in (0, 1)},
        }
        total = 0.0
        for task in [rng.choice(tasks) for _ in tasks]:
            count = len(hits["x", task, 0, 0])
            queries = [rng.randrange(count) for _ in range(count)]
            for method, sign in (("x", 1), ("top-k", -1)):
                means = [
                    sum(hits[method, task, seed, sample][q] for q in queries for sample in chosen[method][seed])
                    / (count * len(chosen[method][seed]))
                    for seed in draws
                ]
                total += sign * 100 * sum(means) / len(means) / len(tasks)
        gaps.append(total)
    return sorted(gaps)


def test_a_method_may_have_a_reference_of_its_own(rows):
    third = [replace(row, method="y", value=max(0.0, row.value - 10), hits="") for row in rows if row.method == "x"]
    bootstrapped = bootstrap([*rows, *third], 200)
    gaps = bootstrapped.differences("top-k", {"y": "x", "x": "nobody"})
    assert set(gaps) == {("top-k", "I2T", 1), ("y", "I2T", 1)}
    assert gaps["y", "I2T", 1] == bootstrapped.difference(("y", "I2T", 1), "x")


def interval(average: Bootstrap, cell: tuple[str, str, int]) -> tuple[float, float, float]:
    """A cell's mean, and the middle 95 % of its resamples."""
    low, high = np.percentile(average.resampled_B[cell], [2.5, 97.5])
    return average.measured[cell], low, high


def test_the_interval_is_that_of_the_loops(rows):
    expected = slowly(rows, 6000)
    mean, low, high = bootstrap(rows, 20_000).difference(("x", "I2T", 1), "top-k")
    assert (low, high) == pytest.approx((expected[150], expected[5850]), abs=0.6)
    assert low < mean < high
    assert high - low > 8  # so 0.6 is not everything


def test_queries_make_an_interval_wider_than_tasks_alone(rows):
    bare = [Row(r.method, "d", r.task, r.sample, "I2T", 1, r.value, r.seed) for r in rows]
    whole, tasks = (interval(bootstrap(some), ("x", "I2T", 1)) for some in (rows, bare))
    assert whole[0] == pytest.approx(tasks[0])
    assert whole[2] - whole[1] > 1.04 * (tasks[2] - tasks[1])
    assert bootstrap(bare).without_hits == {"x", "top-k"}
    assert bootstrap(rows).without_hits == frozenset()


def test_a_method_differs_from_its_twin_by_nothing_at_all(rows):
    twin = [Row("twin", r.dataset, r.task, r.sample, r.direction, r.k, r.value, r.seed, r.hits) for r in rows]
    twin = [copy for copy, r in zip(twin, rows, strict=True) if r.method == "top-k"]
    gap = bootstrap([*rows, *twin]).difference(("twin", "I2T", 1), "top-k")
    assert gap == (0.0, 0.0, 0.0)
    assert not is_clear(gap)


def test_seeds_are_drawn_in_common():
    """Both methods are 30 points better with the second seed; their difference does not know it."""
    values = {("x", 0): 40.0, ("x", 1): 70.0, ("top-k", 0): 30.0, ("top-k", 1): 60.0}
    rows = [Row(m, "d", f"t{t}", 0, "T2I", 1, value, seed) for (m, seed), value in values.items() for t in range(3)]
    bootstrapped = bootstrap(rows)
    assert bootstrapped.difference(("x", "T2I", 1), "top-k") == pytest.approx((10, 10, 10))
    assert interval(bootstrapped, ("x", "T2I", 1)) == pytest.approx((55, 40, 70))
    assert is_clear((10, 10, 10))
    assert is_clear((-3, -5, -1))


def test_only_tasks_that_all_methods_have_are_compared(rows):
    fewer = [r for r in rows if (r.method, r.task) != ("top-k", "t4")]
    kept = [r.value for r in fewer if r.method == "x" and r.task != "t4"]
    assert bootstrap(fewer).measured["x", "I2T", 1] == pytest.approx(sum(kept) / len(kept))


def test_accuracy_and_recall_do_not_meet(rows):
    accuracy = [Row("x", "c", "cats", 0, "ACC", 1, 25.0), Row("top-k", "c", "cats", 0, "ACC", 1, 75.0)]
    bootstrapped = bootstrap([*rows, *accuracy])
    assert bootstrapped.difference(("x", "ACC", 1), "top-k") == (-50.0, -50.0, -50.0)
    assert bootstrapped.measured["x", "I2T", 1] == pytest.approx(bootstrap(rows).measured["x", "I2T", 1])


def test_the_same_seed_gives_the_same_interval(rows):
    assert bootstrap(rows, 500, seed=3).differences("top-k") == bootstrap(rows, 500, seed=3).differences("top-k")


def test_nothing_measured_gives_nothing():
    assert bootstrap([]).measured == {}
    rows = [Row("x", "d", "a", 0, "I2T", 1, 1.0), Row("y", "d", "b", 0, "I2T", 1, 1.0)]
    assert bootstrap(rows).differences("x") == {}


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "queries", "spread"), SETTINGS)
def test_the_95_percent_interval_holds_a_known_difference_about_as_often(tasks, queries, spread):
    both, tasks_only = coverage(np.random.default_rng(1), tasks, queries, spread, experiments=100, resamples=300)
    assert 0.89 <= both.share <= 1  # 0.95 less nearly three standard deviations of 100 experiments
    assert both.width > tasks_only.width


@pytest.mark.slow
def test_one_task_drawn_without_its_queries_says_nothing_about_chance():
    _, tasks_only = coverage(np.random.default_rng(1), 1, 100, 0.0, experiments=100, resamples=300)
    assert tasks_only.share < 0.2
