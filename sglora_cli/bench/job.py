"""A measurement as a job: each step measures the adapters of one method on one task, in any process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sglora_cli.bench.driver import Driver, check_results, performing, resources_of, summary
from sglora_cli.bench.measure import Measurer, Part, Work
from sglora_cli.bench.methods import BenchPlan
from sglora_cli.config import StepConfig
from sglora_cli.errors import Mismatch
from sglora_cli.files.hashes import content_hash
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.plugin.contracts import Executor
from sglora_cli.plugin.executors import LOCAL
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import Resources, Step
from sglora_cli.system.display import counted
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import Advance, Record, working

MEASURE = "measure"
"""The kind of the steps of this module."""
Planner = Callable[[Host], BenchPlan]
"""Makes the plan of a measurement in any process. It can be pickled."""


@dataclass(frozen=True)
class Elsewhere:
    """How a measurement runs on an executor."""

    executor: Executor
    resources: Resources
    planner: Planner
    note: Callable[[str], None]

    @classmethod
    def of(
        cls, executor: Executor, step: StepConfig, plan: BenchPlan, planner: Planner, note: Callable[[str], None]
    ) -> Elsewhere | None:
        """Return how a plan runs on an executor, or None for this process, which measures faster without steps.

        Raises Unavailable if the executor cannot run the steps.
        """
        resources = resources_of(step, executor.name, plan.model.device.type)
        executor.check(resources)
        if executor.name != LOCAL:
            return cls(executor, resources, planner, note)
        if resources.cpus:
            torch.set_num_threads(resources.cpus)
        return None


@dataclass(frozen=True)
class BenchJob:
    """A measurement without anything that only the driver has."""

    planner: Planner
    plan_key: str
    """The key of the driver's plan."""
    part_keys: Mapping[str, str]
    """Step -> the key under which the driver looks for the rows. The worker's own keys depend on its installation."""
    precision: str
    fresh: bool
    driver: Driver

    def perform(self, step: Step, advance: Advance, journal: Record) -> None:
        """See Job. Raises Mismatch if the plan differs from the driver's."""
        with performing(step, self.driver):
            plan, measurer = self._loaded()
            task, part = (int(number) for number in step.key.split("/"))
            own = replace(plan.parts(plan.tasks[task])[part], key=self.part_keys[step.key])
            before = replace(measurer.count)
            measurer.rows_of(plan.tasks[task], [own])
            count = measurer.count
            journal("measured", encoded=count.encoded - before.encoded, saved=count.saved - before.saved)
            advance(step.units, step.name)

    def _loaded(self) -> tuple[BenchPlan, Measurer]:
        """Return the plan in this process, and make it for the first step."""
        if self.driver.token not in _plans:
            _plans.clear()
            plan = self.planner(Host.load())
            if plan.key != self.plan_key:
                raise Mismatch(
                    "this worker would measure other tasks or adapters than the driver",
                    "use the same weights, packs and data on every machine",
                )
            _plans[self.driver.token] = plan, Measurer(plan.model, self.precision, self.fresh)
        return _plans[self.driver.token]


_plans: dict[str, tuple[BenchPlan, Measurer]] = {}
"""The last plan that this process made, under the token of its driver."""


def measured_elsewhere(
    plan: BenchPlan, parts: Sequence[Sequence[Part]], measurer: Measurer, elsewhere: Elsewhere
) -> tuple[list[list[Part]], Measurer]:
    """Measure on an executor what is not stored yet.

    parts: those of each task.  Returns the parts with the keys of their stored rows, and a measurer that reads them.
    Raises Unavailable if a result is not visible here afterwards.
    """
    reader = replace(measurer, fresh=False, count=Work())
    keyed: list[list[Part]] = []
    missing: dict[str, tuple[UnseenTask, Part]] = {}
    # Rows that no other measurement may use are stored under a key of this one, and removed.
    passing: list[tuple[UnseenTask, Part]] = []
    with Driver.here() as driver:
        for t, (task, some) in enumerate(zip(plan.tasks, parts, strict=True)):
            keyed.append([])
            for n, part in enumerate(some):
                kept = bool(part.key) and not measurer.fresh
                own = part if kept else replace(part, key=content_hash(driver.token, t, n))
                keyed[t].append(own)
                if not reader.remembers(task, own):
                    missing[f"{t}/{n}"] = task, own
                    passing += [] if kept else [(task, own)]
        if missing:
            steps = [_step(key, *of, reader.place(*of), elsewhere.resources) for key, of in missing.items()]
            keys = {key: part.key for key, (_, part) in missing.items()}
            job = BenchJob(elsewhere.planner, plan.key, keys, measurer.precision, measurer.fresh, driver)
            try:
                with working("bench", sum(step.units for step in steps)) as advance:
                    counts = elsewhere.executor.run(job, steps, advance, _Counter(measurer.count))
                check_results(steps, elsewhere.executor.name, counts)
                for task, part in passing:
                    reader.remembers(task, part)  # reads the rows
            finally:
                for task, part in passing:
                    reader.place(task, part).unlink(missing_ok=True)
            elsewhere.note(f"bench: {counted(sum(counts.values()), 'step')}, {summary(counts)}")
    return keyed, reader


def _step(key: str, task: UnseenTask, part: Part, path: Path, resources: Resources) -> Step:
    name = f"{task.key}, method {int(key.split('/')[1]) + 1}"
    units = float(len(task.tensors.stem_N))
    return Step(key, MEASURE, name, path.relative_to(cache_folder()).as_posix(), (), units, resources)


@dataclass(frozen=True)
class _Counter:
    """A journal that adds up the work of all workers."""

    work: Work

    def __call__(self, event: str, **values: int) -> None:
        if event == "measured":
            self.work.encoded += values["encoded"]
            self.work.saved += values["saved"]
