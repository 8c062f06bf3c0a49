"""Runs a plan and reports its rows.

Shapes: P parameters of an adapter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sglora_cli.bench.bootstrap import bootstrap
from sglora_cli.bench.job import Elsewhere, measured_elsewhere
from sglora_cli.bench.measure import Measurer
from sglora_cli.bench.methods import BenchPlan
from sglora_cli.bench.retrieval import KS, chance
from sglora_cli.bench.rows_file import Log
from sglora_cli.bench.sentences import apart, sentence_gains
from sglora_cli.data.encode import encode_images
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.plugin.values import CHANCE, Report, Row
from sglora_cli.system import cache
from sglora_cli.system.display import counted
from sglora_cli.system.progress import progress


@cache.lease()
def run(plan: BenchPlan, measurer: Measurer, log: Log | None = None, elsewhere: Elsewhere | None = None) -> list[Row]:
    """Measure everything in the plan. Finished tasks are read from the log.

    In this process, the adapters of one task share one pass over its images.
    elsewhere: measures on an executor, and gives the same rows.
    """
    rows: list[Row] = []
    parts = [plan.parts(task) for task in plan.tasks]
    for task, some in zip(plan.tasks, parts, strict=True):
        for part in some:
            if not measurer.remembers(task, part):
                part.prepare()
    if elsewhere:
        parts, measurer = measured_elsewhere(plan, parts, measurer, elsewhere)
    for task, some in progress(list(zip(plan.tasks, parts, strict=True)), "bench"):
        measured = [*measurer.rows_of(task, some), *_by_chance(task)]
        if log is not None:
            log.add(measured)
        rows += measured
    return rows


def _by_chance(task: UnseenTask) -> list[Row]:
    if task.tensors.label_of:
        chances = {("ACC", 1): 100.0 / len(task.tensors.text_CD)}
    else:
        chances = chance(len(task.tensors.stem_N), task.tensors.image_of)
    return [Row(CHANCE, task.dataset, task.name, 0, d, k, value) for (d, k), value in chances.items()]


def estimate(plan: BenchPlan, measurer: Measurer) -> dict[str, Any]:
    """Estimate a run without doing it, by encoding one task's images a few times.

    The least time assumes the fastest trial, and that only two draws of each method need measuring.
    """
    parts = {t.key: plan.parts(t) for t in plan.tasks}
    images = [measurer.missing(t, parts[t.key]) for t in plan.tasks]
    least, most = sum(one.least for one in images), sum(one.most for one in images)
    first = plan.tasks[0]
    candidate = next(c for part in reversed(parts[first.key]) for c in part.make())
    one_P = candidate.flat_P.view(-1, candidate.layout.size)[:1]
    times = []
    for _ in range(1 + _TRIALS):
        start = time.perf_counter()
        encode_images(plan.model, candidate.layout, first.tensors, one_P)
        times.append((time.perf_counter() - start) / len(first.tensors.stem_N))
    times = sorted(times[1:])  # the first trial is a warm-up
    return {
        "pack": plan.pack,
        "tasks": list(parts),
        "methods": list(plan.names),
        "adapters": sum(one.adapters for one in images),
        "images_to_encode": most,
        "images_at_least": least,
        "images_known": sum(one.known for one in images),
        "images_per_second": round(1 / times[_TRIALS // 2], 1),
        "seconds": round(most * times[_TRIALS // 2], 1),
        "seconds_range": [round(least * times[0], 1), round(most * times[-1], 1)],
    }


_TRIALS = 3


def report(plan: BenchPlan, rows: Sequence[Row], paper: bool = False) -> Report:
    """Return the report of rows, with everything that reporters print."""
    rows, controls = apart(rows)
    intervals = bootstrap(rows, plan.config.resamples, plan.config.seed)
    gains = sentence_gains(rows, controls, plan.config.resamples, plan.config.seed)
    against = plan.against if plan.against in plan.names or plan.references else next(iter(plan.names))
    labels = {CHANCE: "Chance", **plan.names}
    notes = [*_summary(plan, rows), *_trivial(plan.tasks), *plan.notes]
    if bare := sorted(intervals.without_hits - {CHANCE}):
        notes.append(f"intervals of {', '.join(bare)} are over tasks only, because hits per query were not stored")
    gaps = intervals.differences(against, plan.references)
    return Report(
        plan.pack,
        rows,
        labels,
        gaps,
        against,
        notes,
        paper,
        plan.protocol,
        role=plan.role,
        controls=controls,
        sentence_gains=gains,
    )


def _summary(plan: BenchPlan, rows: Sequence[Row]) -> list[str]:
    tasks = sorted({(row.dataset, row.task) for row in rows})
    sizes = ", ".join(f"{sum(d == name for d, _ in tasks)} {name}" for name in sorted({d for d, _ in tasks}))
    what = " and ".join(sorted({"accuracy" if row.direction == "ACC" else "recall" for row in rows}, reverse=True))
    noun = f"{plan.role} " * bool(plan.protocol) + ("tasks" if len(tasks) != 1 else "task")
    owner = f"; pack {plan.pack!r}" if plan.pack else ""
    return [f"{len(tasks)} {noun} ({sizes}); {what} in percent, averaged over tasks{owner}"]


def _trivial(tasks: Sequence[UnseenTask]) -> list[str]:
    """Return notes for k of at least the number of images, where every caption finds its image."""
    notes = []
    for k in KS:
        small = [t for t in tasks if not t.tensors.label_of and len(t.tensors.stem_N) <= k]
        if small:
            notes.append(
                f"T2I R@{k} is 100 by definition in {counted(len(small), 'task')} of at most {counted(k, 'image')}"
            )
    return notes
