"""A build as a job whose steps can run in any process."""

from __future__ import annotations

import atexit
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sglora_cli.bench.driver import Driver, performing
from sglora_cli.build.bank import Bank
from sglora_cli.build.experts import write_experts
from sglora_cli.build.fitting import FIT, FOLD, Fitting
from sglora_cli.build.pool_tasks import PoolTask
from sglora_cli.build.steps import Steps
from sglora_cli.build.tasks import BuildTask, missing_features
from sglora_cli.config import RuntimeConfig
from sglora_cli.data.features import Features
from sglora_cli.errors import Mismatch
from sglora_cli.lora.layout import Layout
from sglora_cli.pack.recipe import Recipe
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import Resources, Step
from sglora_cli.system import settings
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import Advance, Record

FEATURES = "features"


def feature_steps(tasks: Sequence[BuildTask], resources: Resources) -> list[Step]:
    """Return a step for all features that are not in the cache."""
    missing = {features.key: features for features in missing_features(tasks)}
    return [
        Step(key, FEATURES, one.name, one.path.relative_to(cache_folder()).as_posix(), (), len(one.photos), resources)
        for key, one in missing.items()
    ]


@dataclass(frozen=True)
class BuildJob:
    """A build without anything that only this process has."""

    key: str
    """Hash of everything that its steps depend on. A process that knows it need not load anything again."""
    recipe: Recipe
    runtime: RuntimeConfig
    tasks: Sequence[BuildTask]
    pool_tasks: Sequence[PoolTask]
    fingerprint: str
    """Of the driver's model."""
    driver: Driver | None = None
    """None if the job stays in this process."""
    here: Worker | None = field(default=None, repr=False)
    """The driver's own worker, which is not pickled."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "here": None}

    def perform(self, step: Step, advance: Advance, journal: Record) -> None:
        """See Job."""
        with performing(step, self.driver):
            worker = self.here or _worker(self)
            worker.perform(step, advance, journal)


class Worker:
    """A process that performs steps of a build."""

    def __init__(self, steps: Steps, fitting: Callable[[], Fitting]) -> None:
        """fitting: is called for the first fit, when the experts are trained."""
        self._steps, self._make_fitting = steps, fitting
        self._advance: Advance = lambda units, part: None

    @cached_property
    def _fitting(self) -> Fitting:
        return self._make_fitting()

    def note(self, text: str) -> None:
        """Show what a fit reports as the progress of its step."""
        self._advance(0.0, text)

    def perform(self, step: Step, advance: Advance, journal: Record) -> None:
        """Do one step, unless its file exists."""
        self._advance = advance
        if step.kind == FEATURES:
            self._compute(self._features[step.key], advance, journal)
        elif step.kind in (FIT, FOLD):
            self._fitting.perform(step, journal)
            advance(step.units, f"{step.kind} {step.name}")
        else:
            self._steps.perform(step.key, advance, journal)

    @cached_property
    def _features(self) -> dict[str, Features]:
        return {one.key: one for t in self._steps.tasks for one in (t.train, t.mirror, t.test) if one}

    def _compute(self, features: Features, advance: Advance, journal: Record) -> None:
        began = time.monotonic()
        for done in features.compute(self._steps.model):
            advance(done, features.name)
        seconds = round(time.monotonic() - began, 3)
        journal("features", task=features.name, photos=len(features.photos), seconds=seconds)


_loaded: dict[str, Worker] = {}
"""The worker of this process for the last job, under the key of the job."""


def _worker(job: BuildJob) -> Worker:
    """Load what a job needs into this process, unless it is already there.

    Raises Mismatch for other weights than the driver's, and the errors of loading a backbone.
    """
    if job.key not in _loaded:
        _loaded.clear()
        _remove_folders()
        host, recipe = Host.load(), job.recipe
        model = host.backbones[recipe.backbone].load(settings.runtime(job.runtime, recipe.backbone))
        if model.fingerprint != job.fingerprint:
            raise Mismatch(
                f"backbone {recipe.backbone!r} has other weights on this worker than on the driver",
                "copy the same weights to every machine, or pass --weights FILE with a file that all machines share",
            )
        layout = Layout(tuple(model.sites), recipe.lora.rank, recipe.lora.alpha)
        steps = Steps(model, layout, job.tasks, recipe.train)
        folder = tempfile.TemporaryDirectory(prefix="sglora-experts-", ignore_cleanup_errors=True)
        _folders.append(folder)

        def fitting() -> Fitting:
            experts, bank = write_experts(Path(folder.name), steps), Bank(model, steps.seen)
            return Fitting(host, recipe, steps, job.pool_tasks, bank, experts, worker.note)

        worker = Worker(steps, fitting)
        _loaded[job.key] = worker
    return _loaded[job.key]


_folders: list[tempfile.TemporaryDirectory[str]] = []
"""The experts of the last job, which are removed before those of the next one and when the process ends."""


@atexit.register
def _remove_folders() -> None:
    while _folders:
        _folders.pop().cleanup()
