"""Measurements on an executor: the rows of one in this process, and what is measured again."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from distributions import install

from sglora_cli.bench import job as job_module
from sglora_cli.bench.candidates import save_candidates
from sglora_cli.bench.job import ADAPTERS, MEASURE
from sglora_cli.bench.measure import Measurer
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
    broken: str = ""
    """The kind of the steps after which it fails."""
    between: Callable[[], None] = list
    """Called between the two kinds of steps."""

    def run(self, job, steps, advance, journal):
        job_module._plans.clear()
        self.ran.append(len(steps))
        if not {step.kind for step in steps} & {ADAPTERS, MEASURE}:  # a build
            return super().run(pickle.loads(pickle.dumps(job)), steps, advance, journal)
        known, counts = {step.key for step in steps}, {}
        for kind in (ADAPTERS, MEASURE):
            some = [step for step in steps if step.kind == kind]
            assert all(set(step.after) <= known for step in some)
            counts = super().run(pickle.loads(pickle.dumps(job)), some, advance, journal)
            if self.broken == kind:
                raise Unavailable("broken")
            if kind == ADAPTERS:
                self.between()
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


@pytest.fixture
def made(monkeypatch):
    """The paths of the files of adapters that are made."""
    paths = []

    def save(path, candidates):
        paths.append(path)
        save_candidates(path, candidates)

    monkeypatch.setattr(job_module, "save_candidates", save)
    return paths


def adapters(home):
    return list((home / "cache/measured/adapters").rglob("*.safetensors"))


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
    assert not adapters(own_home)
    assert run(*BENCH, three, "--executor", "pickling").exit_code == 0
    assert rows(three) == rows(one)
    assert len(executor.ran) == 1  # everything is stored
    assert run(*BENCH, four).exit_code == 0
    assert rows(four) == rows(one)


def test_folds_are_built_and_measured_on_an_executor(executor, toy_pack, toys, run, own_home, tmp_path):
    folds = ("bench", "--folds", 2, "--data", toys, "--baselines", "zero-shot,top-k,cvae", "--rows")
    assert run(*folds, tmp_path / "here.jsonl", "--cpus-per-step", 1).exit_code == 0
    assert run("cache", "clean", "folds", "work", "measured", "--yes").exit_code == 0
    result = run(*folds, tmp_path / "there.jsonl", "--executor", "pickling", "--fresh")
    assert result.exit_code == 0, result.output
    assert len(executor.ran) > 2  # builds and one measurement
    assert rows(tmp_path / "there.jsonl") == rows(tmp_path / "here.jsonl")


def test_a_broken_run_leaves_only_rows_that_others_may_use(executor, toy_pack, run, own_home, tmp_path):
    executor.broken = MEASURE
    failed = run(*BENCH, tmp_path / "rows.jsonl", "--executor", "pickling", "--fresh")
    assert failed.exit_code == Unavailable.exit_code
    assert executor.ran
    assert not list((own_home / "cache/measured/made").rglob("*.json"))
    assert not adapters(own_home)


def test_adapters_that_were_not_measured_are_not_made_again(executor, made, toy_pack, run, own_home, tmp_path):
    executor.broken = ADAPTERS
    command = (*BENCH, tmp_path / "rows.jsonl", "--executor", "pickling")
    assert run(*command).exit_code == Unavailable.exit_code
    first, made[:] = list(made), []
    assert sorted(adapters(own_home)) == sorted(first)
    executor.broken = ""
    assert run(*command).exit_code == 0
    assert made == []
    assert not adapters(own_home)
    assert run(*BENCH, tmp_path / "here.jsonl", "--fresh").exit_code == 0
    assert rows(tmp_path / "rows.jsonl") == rows(tmp_path / "here.jsonl")


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_adapters_that_are_lost_before_they_are_measured_are_made_again(
    executor, made, toy_pack, run, own_home, tmp_path, harm
):
    executor.between = lambda: [harm(path) for path in adapters(own_home)]
    assert run(*BENCH, tmp_path / "rows.jsonl", "--executor", "pickling").exit_code == 0
    assert made
    assert not adapters(own_home)
    assert run(*BENCH, tmp_path / "here.jsonl", "--fresh").exit_code == 0
    assert rows(tmp_path / "rows.jsonl") == rows(tmp_path / "here.jsonl")


def test_a_step_that_is_attempted_again_after_it_is_finished_does_nothing(executor, toy_pack, run, own_home, tmp_path):
    """As if its worker was lost before its machine could say that it is finished."""

    def twice(job, steps, advance, journal):
        job = pickle.loads(pickle.dumps(job))
        return InProcess().run(job, [step for step in steps for _ in range(2)], advance, journal)

    executor.run = twice
    assert run(*BENCH, tmp_path / "rows.jsonl", "--executor", "pickling", "--fresh").exit_code == 0
    assert not adapters(own_home)
    assert run(*BENCH, tmp_path / "here.jsonl", "--fresh").exit_code == 0
    assert rows(tmp_path / "rows.jsonl") == rows(tmp_path / "here.jsonl")


@pytest.mark.parametrize("then", [(), ("--executor", "pickling")])
def test_adapters_go_when_their_rows_are_stored_by_any_executor(executor, toy_pack, run, own_home, tmp_path, then):
    executor.broken = ADAPTERS
    assert run(*BENCH, tmp_path / "rows.jsonl", "--executor", "pickling").exit_code == Unavailable.exit_code
    left = {path: path.read_bytes() for path in adapters(own_home)}
    executor.broken = ""
    assert run(*BENCH, tmp_path / "rows.jsonl", *then).exit_code == 0
    assert len(left) > 2
    assert not adapters(own_home)
    for path, content in left.items():  # as if the process was killed before it could remove them
        path.write_bytes(content)
    assert run(*BENCH, tmp_path / "rows.jsonl", "--executor", "pickling").exit_code == 0
    assert not adapters(own_home)


def test_a_file_in_the_place_of_the_folder_of_adapters_is_named_once(executor, toy_pack, run, own_home, tmp_path):
    place = own_home / "cache/measured/adapters"
    place.parent.mkdir(parents=True)
    place.touch()
    result = run(*BENCH, tmp_path / "rows.jsonl", "--executor", "pickling", "--fresh")
    assert result.exit_code == Unavailable.exit_code, result.output
    assert result.stderr.count("error: ") == 1
    assert f"error: cannot write {place}" in result.stderr
    assert "Traceback" not in result.output


def test_a_worker_with_other_photos_is_refused(executor, toy_pack, run, monkeypatch, tmp_path):
    original = Measurer.on
    executor.between = lambda: monkeypatch.setattr(Measurer, "on", lambda self, task: f"other {original(self, task)}")
    result = run(*BENCH, tmp_path / "rows.jsonl", "--executor", "pickling")
    assert result.exit_code == Mismatch.exit_code
    assert "error: this worker reads other photos or captions of toys/" in result.stderr
    assert "hint: use the same weights, packs and data on every machine\n" in result.stderr


def test_nothing_is_written_if_everything_is_stored(executor, toy_pack, run, own_home, tmp_path):
    command = ("bench", "--pack", "toys", "--baselines", "zero-shot,oracle,top-k", "--rows", tmp_path / "rows.jsonl")
    assert run(*command).exit_code == 0

    def content():
        folders = (own_home / "cache/measured", own_home / "cache/work")
        return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}

    before = content()
    result = run(*command, "--executor", "pickling")
    assert (result.exit_code, executor.ran) == (0, [])
    assert content() == before
    assert "0 images encoded, 0 saved" not in result.stderr
    assert result.stderr.splitlines()[-1] == run(*command).stderr.splitlines()[-1]


def test_rows_measured_on_an_executor_are_found_later(executor, toy_pack, run, tmp_path):
    baselines = ("--baselines", "zero-shot,top-k", "--pack", "toys")
    first = run("bench", *baselines, "--executor", "pickling")
    assert " images encoded, 0 saved" in first.stderr
    assert run("bench", *baselines, "--executor", "pickling").stderr.startswith("0 images encoded")
    assert run("bench", *baselines).stderr.startswith("0 images encoded")
    assert executor.ran == [16]  # two tasks, two methods, own and other sentences, adapters and measurement


def test_a_worker_that_plans_something_else_is_refused(executor, toy_pack, run, monkeypatch):
    original = job_module.BenchJob.__init__

    def other(self, planner, plan_key, *rest):
        original(self, planner, "another plan", *rest)

    monkeypatch.setattr(job_module.BenchJob, "__init__", other)
    result = run("bench", "--pack", "toys", "--baselines", "zero-shot", "--executor", "pickling")
    assert result.exit_code == Mismatch.exit_code
    assert "error: this worker would measure other tasks or adapters than the driver\n" in result.stderr
    assert "hint: use the same weights, packs and data on every machine\n" in result.stderr
