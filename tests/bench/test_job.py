"""Measurements on an executor: the rows of one in this process, and what is measured again."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

import pytest
from distributions import install

from sglora_cli.bench import job as job_module
from sglora_cli.errors import Mismatch, Unavailable
from sglora_cli.plugin.executors import InProcess

PLUGIN = """
from test_executor_of_bench import EXECUTOR
from sglora_cli.api import hookimpl
SGLORA_API = "1.0"
@hookimpl
def sglora_executors():
    return [EXECUTOR]
"""
BENCH = ("bench", "--pack", "toys", "--baselines", "zero-shot,oracle,top-k,cvae", "--rows")


@dataclass
class Pickling(InProcess):
    """Runs the steps of a pickled copy of the job in this process."""

    name: str = "pickling"
    ran: list[int] = field(default_factory=list)
    broken: bool = False
    """Whether it fails after all steps."""

    def run(self, job, steps, advance, journal):
        job_module._plans.clear()
        self.ran.append(len(steps))
        counts = super().run(pickle.loads(pickle.dumps(job)), steps, advance, journal)
        if self.broken:
            raise Unavailable("broken")
        return counts


@pytest.fixture
def executor(site, monkeypatch):
    """The plugin `pickling`."""
    import sys
    import types

    one, module = Pickling(), types.ModuleType("test_executor_of_bench")
    module.EXECUTOR = one
    monkeypatch.setitem(sys.modules, module.__name__, module)
    install(site, "sglora-pickling", "sglora_pickling", PLUGIN)
    yield one
    sys.modules.pop("sglora_pickling", None)


def rows(path):
    return path.read_text().splitlines()[1:]


def test_the_rows_are_those_of_one_process(executor, toy_pack, run, own_home, tmp_path):
    one, two, three, four = (tmp_path / f"{n}.jsonl" for n in range(4))
    assert run(*BENCH, one, "--fresh").exit_code == 0
    here = set((own_home / "cache/measured/made").rglob("*.json"))
    result = run(*BENCH, two, "--executor", "pickling", "--fresh")
    assert result.exit_code == 0, result.output
    assert rows(two) == rows(one)
    assert "bench: " in result.stderr
    assert set((own_home / "cache/measured/made").rglob("*.json")) == here  # rows of --fresh are for this run only
    assert run(*BENCH, three, "--executor", "pickling").exit_code == 0
    assert rows(three) == rows(one)
    assert executor.ran[1] < executor.ran[0]  # only methods whose rows are never kept
    assert run(*BENCH, four).exit_code == 0
    assert rows(four) == rows(one)


def test_a_broken_run_leaves_only_rows_that_others_may_use(executor, toy_pack, run, own_home, tmp_path):
    executor.broken = True
    failed = run(*BENCH, tmp_path / "rows.jsonl", "--executor", "pickling", "--fresh")
    assert failed.exit_code == Unavailable.exit_code
    assert executor.ran
    assert not list((own_home / "cache/measured/made").rglob("*.json"))


def test_rows_measured_on_an_executor_are_found_later(executor, toy_pack, run, tmp_path):
    baselines = ("--baselines", "zero-shot,top-k", "--pack", "toys")
    first = run("bench", *baselines, "--executor", "pickling")
    assert " images encoded, 0 saved" in first.stderr
    assert run("bench", *baselines, "--executor", "pickling").stderr.startswith("0 images encoded")
    assert run("bench", *baselines).stderr.startswith("0 images encoded")
    assert executor.ran == [8]  # two tasks, two methods, own and other sentences


def test_a_worker_that_plans_something_else_is_refused(executor, toy_pack, run, monkeypatch):
    original = job_module.BenchJob.__init__

    def other(self, planner, plan_key, *rest):
        original(self, planner, "another plan", *rest)

    monkeypatch.setattr(job_module.BenchJob, "__init__", other)
    result = run("bench", "--pack", "toys", "--baselines", "zero-shot", "--executor", "pickling")
    assert result.exit_code == Mismatch.exit_code
    assert "error: this worker would measure other tasks or adapters than the driver\n" in result.stderr
    assert "hint: use the same weights, packs and data on every machine\n" in result.stderr
