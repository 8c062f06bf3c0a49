"""A build's steps in another process: what a worker needs travels with the job."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sglora_cli.build import job as job_module
from sglora_cli.build.pipeline import Build
from sglora_cli.errors import Mismatch, Unavailable
from sglora_cli.pack.recipe_parser import read
from sglora_cli.plugin.executors import InProcess
from sglora_cli.plugin.host import Host

PERFORM = """
import pickle, sys
job, steps = pickle.load(open(sys.argv[1], "rb"))
for step in steps:
    job.perform(step, lambda units, part: None, lambda event, **values: print(event))
"""


@dataclass
class Spawning(InProcess):
    """Runs all steps of a job in one new process."""

    name: str = "spawning"
    folder: Path = Path()
    site: str = ""

    def run(self, job, steps, advance, journal):
        path = self.folder / "job"
        path.write_bytes(pickle.dumps((job, steps)))
        code = f"import sys; sys.path.insert(0, {self.site!r})\n{PERFORM}"
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, stdout=subprocess.DEVNULL)
        return {"here": len(steps)}


class Lost(Spawning):
    """Loses the results."""

    def run(self, job, steps, advance, journal):
        return {"there": len(steps)}


@pytest.fixture
def prepared(tiny, recipe, toys, tmp_path, site):
    def prepare(kind):
        return Build.prepare(Host.load(), read(recipe), toys, executor=kind(folder=tmp_path, site=str(site)))

    return prepare


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_steps_in_another_process_make_the_same_pack(prepared, run, recipe, toys, own_home, monkeypatch, tmp_path):
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    monkeypatch.setenv("SGLORA_HOME", str(tmp_path / "second"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert content(prepared(Spawning).run()) == content(own_home / "cache/packs/toys")


def test_results_that_the_driver_does_not_see_are_named(prepared):
    with pytest.raises(Unavailable, match=r"executor 'spawning' performed step features 'toys/\w+', but features/"):
        prepared(Lost).run()


def test_a_worker_with_other_weights_is_refused(prepared, monkeypatch):
    build = prepared(Lost)
    job = replace(build._job(None, None), here=None, fingerprint="0123", key="other weights")
    monkeypatch.setattr(job_module, "_loaded", {})
    (step, *_) = job_module.feature_steps(build.tasks, build.resources)
    with pytest.raises(Mismatch, match="backbone 'tiny' has other weights on this worker than on the driver"):
        job.perform(step, lambda *_: None, lambda *_, **__: None)
