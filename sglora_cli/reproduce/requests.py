"""A measurement as a request of `sglora bench` and as its command line. No torch."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import Any

from sglora_cli.bench.paper import PAPER
from sglora_cli.bench.request import BenchRequest
from sglora_cli.config import BenchConfig
from sglora_cli.reproduce.job import Job
from sglora_cli.reproduce.targets import Measurement


def bench_request(job: Job, one: Measurement) -> BenchRequest:
    """Return the request of `sglora bench` for a measurement."""
    dataset, _ = one.source
    return BenchRequest(
        baselines="paper" if one.methods == PAPER else ",".join(one.methods),
        pack=job.recipes[one.recipe].name,
        on=job.recipes[one.on].name if one.on else "",
        dataset=dataset,
        data=job.place if one.photos else None,
        tasks=",".join(job.measured(one)),
        table=one.table,
        sentences=job.sentences_file(one.name) if one.captions else None,
    )


def bench_command(job: Job, one: Measurement) -> str:
    """Return the command line of the same measurement."""
    request = bench_request(job, one)
    options = {
        "--baselines": request.baselines,
        "--on": request.on,
        "--dataset": request.dataset,
        "--data": request.data,
        "--tasks": request.tasks,
        "--table": "" if request.table == "all" else request.table,
        "--sentences": request.sentences or "",
        **_changed(job.config),
        "--rows": job.rows_file(one.name),
    }
    words = [str(word) for name, value in options.items() if value not in ("", None) for word in (name, value)]
    return shlex.join(["sglora", "bench", "--pack", request.pack, *words])


def _changed(config: BenchConfig) -> dict[str, Any]:
    """Return the options that differ from their defaults."""
    values = ((spec.name, getattr(config, spec.name), spec.default) for spec in fields(config))
    return {f"--{name.replace('_', '-')}": value for name, value, default in values if value != default}
