"""A measurement as a job, whose steps run in any process.

For each task and method, one step makes the adapters and another one measures them. A step that is attempted again
therefore does not repeat the other one, which matters for methods that are trained on photos of the task.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from sglora_cli.bench.candidates import Candidate, load_candidates, save_candidates
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

ADAPTERS, MEASURE = "adapters", "measure"
"""The kinds of the steps of this module."""
_SAME = "use the same weights, packs and data on every machine"
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
    part_keys: Mapping[tuple[int, int], str]
    """Task and part -> key of the part on the driver. The worker's own keys depend on its installation."""
    precision: str
    fresh: bool
    driver: Driver

    def perform(self, step: Step, advance: Advance, journal: Record) -> None:
        """See Job. Raises Mismatch if the plan differs from the driver's."""
        with performing(step, self.driver):
            plan, measurer = self._loaded()
            t, n = (int(number) for number in step.key.split("/")[1:])
            task, part = plan.tasks[t], replace(plan.parts(plan.tasks[t])[n], key=self.part_keys[t, n])
            own = measurer.adapters_place(task, part) if step.kind == ADAPTERS else measurer.place(task, part)
            if own != cache_folder() / step.path:
                raise Mismatch(f"this worker reads other photos or captions of {task.key} than the driver", _SAME)
            if step.kind == MEASURE:
                _measure(measurer, task, part, journal)
            elif load_candidates(own) is None:
                save_candidates(own, part.make())
            advance(step.units, f"{step.kind} {step.name}")

    def _loaded(self) -> tuple[BenchPlan, Measurer]:
        """Return the plan in this process, and make it for the first step."""
        if self.driver.token not in _plans:
            _plans.clear()
            plan = self.planner(Host.load())
            if plan.key != self.plan_key:
                raise Mismatch("this worker would measure other tasks or adapters than the driver", _SAME)
            _plans[self.driver.token] = plan, Measurer(plan.model, self.precision, self.fresh)
        return _plans[self.driver.token]


_plans: dict[str, tuple[BenchPlan, Measurer]] = {}
"""The last plan that this process made, under the token of its driver."""


def _measure(measurer: Measurer, task: UnseenTask, part: Part, journal: Record) -> None:
    """Store the rows of a part, unless they are stored."""
    stored = replace(measurer, fresh=False)
    if stored.remembers(task, part):
        journal("measured", encoded=0, saved=stored.images_of(task, part))
        stored.drop_adapters(task, part)
        return
    before = replace(measurer.count)
    make = partial(_made, measurer.adapters_place(task, part), part.make)
    measurer.rows_of(task, [replace(part, make=make)])
    count = measurer.count
    journal("measured", encoded=count.encoded - before.encoded, saved=count.saved - before.saved)


def _made(path: Path, make: Callable[[], list[Candidate]]) -> list[Candidate]:
    """Return adapters of a file. They are made if another command has removed it, or if it is damaged."""
    stored = load_candidates(path)
    return make() if stored is None else stored


def measured_elsewhere(
    plan: BenchPlan, parts: Sequence[Sequence[Part]], measurer: Measurer, elsewhere: Elsewhere
) -> tuple[list[list[Part]], Measurer]:
    """Measure on an executor what is not stored yet.

    parts: those of each task.  Returns the parts with the keys of their stored rows, and a measurer that reads them.
    Raises Unavailable if a result is not visible here afterwards.
    """
    reader = replace(measurer, fresh=False, count=Work())
    run = secrets.token_hex(8)
    keyed: list[list[Part]] = []
    missing: dict[tuple[int, int], tuple[UnseenTask, Part]] = {}
    # What no other measurement may use is stored under a key of this one, and removed.
    passing: list[tuple[UnseenTask, Part]] = []
    for t, (task, some) in enumerate(zip(plan.tasks, parts, strict=True)):
        keyed.append([])
        for n, part in enumerate(some):
            if part.ready and not (part.key or measurer.fresh) and not (images := reader.missing(task, [part])).most:
                measurer.count.saved += images.known
                keyed[t].append(part)
                continue
            kept = bool(part.key) and not measurer.fresh
            own = part if kept else replace(part, key=content_hash(run, t, n))
            keyed[t].append(own)
            if reader.remembers(task, own):
                measurer.count.saved += reader.images_of(task, own)
                reader.drop_adapters(task, own)
            else:
                missing[t, n] = task, own
                passing += [] if kept else [(task, own)]
    try:
        if missing:
            _measure_missing(plan, missing, measurer, elsewhere)
        for task, part in passing:
            reader.remembers(task, part)  # reads the rows
    finally:
        for task, part in passing:
            reader.drop(task, part)
    return keyed, reader


def _measure_missing(
    plan: BenchPlan,
    missing: Mapping[tuple[int, int], tuple[UnseenTask, Part]],
    measurer: Measurer,
    elsewhere: Elsewhere,
) -> None:
    """Measure parts on an executor. Raises Unavailable if a result is not visible here afterwards."""
    name, resources = elsewhere.executor.name, elsewhere.resources
    steps = [step for key, of in missing.items() for step in _steps(key, *of, measurer, resources)]
    keys = {key: part.key for key, (_, part) in missing.items()}
    with Driver.here() as driver, working("bench", sum(step.units for step in steps)) as advance:
        job = BenchJob(elsewhere.planner, plan.key, keys, measurer.precision, measurer.fresh, driver)
        counts = elsewhere.executor.run(job, steps, advance, _Counter(measurer.count))
    check_results([step for step in steps if step.kind == MEASURE], name, counts)
    elsewhere.note(f"bench: {counted(sum(counts.values()), 'step')}, {summary(counts)}")


def _steps(key: tuple[int, int], task: UnseenTask, part: Part, measurer: Measurer, resources: Resources) -> list[Step]:
    """Return the step that makes the adapters of a part, unless they exist already, and the one that measures them."""

    def step(kind: str, path: Path, after: tuple[str, ...], units: float) -> Step:
        name, place = f"{part.name} on {task.key}", path.relative_to(cache_folder()).as_posix()
        return Step(f"{kind}/{key[0]}/{key[1]}", kind, name, place, after, units, resources)

    made = [] if part.ready else [step(ADAPTERS, measurer.adapters_place(task, part), (), 1.0)]
    after = tuple(one.key for one in made)
    return [*made, step(MEASURE, measurer.place(task, part), after, float(len(task.tensors.stem_N)))]


@dataclass(frozen=True)
class _Counter:
    """A journal that adds up the work of all workers."""

    work: Work

    def __call__(self, event: str, **values: int) -> None:
        if event == "measured":
            self.work.encoded += values["encoded"]
            self.work.saved += values["saved"]
