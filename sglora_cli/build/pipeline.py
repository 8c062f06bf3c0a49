"""Builds a pack from a recipe, in steps that survive a kill: a finished step is never repeated.

The steps are the features of every task, the warm-up, the adapters of every task, the joint adapter (steps.py), the
generators, and finally the pack's folder. The same recipe and photos produce identical files, also after interruptions,
on one machine with one number of threads. Other arithmetic rounds differently, and training amplifies the difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from sglora_cli import __version__
from sglora_cli.bench.driver import Driver, check_results, resources_of, summary
from sglora_cli.build.bank import Bank
from sglora_cli.build.estimate import Estimate, estimated
from sglora_cli.build.experts import expert_shards, write_experts
from sglora_cli.build.fitting import Fits, Fitting, stored_fit
from sglora_cli.build.job import BuildJob, Worker, feature_steps
from sglora_cli.build.moments import moments
from sglora_cli.build.pool_tasks import PoolTask, phrase_lines, pool_tasks
from sglora_cli.build.prerequisites import plan_tasks
from sglora_cli.build.steps import Steps
from sglora_cli.build.tasks import BuildTask, build_tasks, overlap_lines
from sglora_cli.build.training import hiding
from sglora_cli.config import RuntimeConfig, StepConfig
from sglora_cli.data.features import Features
from sglora_cli.errors import SgloraError, Unavailable
from sglora_cli.files.atomic import followed, put_folder, scratch_folder
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.tensors import save_tensors
from sglora_cli.lora.layout import Layout
from sglora_cli.pack.content.learned import save_learned
from sglora_cli.pack.content.manifest import FORMAT
from sglora_cli.pack.content.moments import save_moments
from sglora_cli.pack.content.names import file_name
from sglora_cli.pack.content.shards import ExpertShards
from sglora_cli.pack.content.tasks import parts, write_tasks
from sglora_cli.pack.coverage import SeenTasks, thinned
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.recipe import Recipe
from sglora_cli.pack.writer import check_replaceable, write_manifest
from sglora_cli.plugin.contracts import Executor, Model
from sglora_cli.plugin.executors import LOCAL, InProcess
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import meaning
from sglora_cli.plugin.values import EXPERT, PHRASE, ROLES, UNSEEN, Moments, Resources, Step, Task
from sglora_cli.system import cache, settings
from sglora_cli.system.display import counted
from sglora_cli.system.locks import pack_lock
from sglora_cli.system.paths import built_folder
from sglora_cli.system.progress import Journal, progress, working

Note = Callable[[str], None]


@dataclass(frozen=True)
class Build:
    """One build: the recipe and its tasks, the target folder, and where progress is reported."""

    host: Host
    recipe: Recipe
    model: Model
    tasks: Sequence[BuildTask]
    steps: Steps
    target: Path
    note: Note
    journal: Journal
    pool_tasks: Sequence[PoolTask]
    """The seen tasks and phrases from their captions, for generators that learn by retrieval."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    executor: Executor = field(default_factory=InProcess)
    resources: Resources = field(default_factory=Resources)
    """The resources of each step."""

    @classmethod
    def prepare(
        cls,
        host: Host,
        recipe: Recipe,
        data: Path,
        note: Note = lambda text: None,
        out: Path | None = None,
        runtime: RuntimeConfig | None = None,
        log: Path | None = None,
        apart: Sequence[Task] = (),
        plan: Sequence[Mapping[str, Sequence[Task]]] = (),
        executor: Executor | None = None,
        step: StepConfig | None = None,
    ) -> Build:
        """Read the recipe and all photos and load the backbone. Nothing is computed or written yet.

        apart: tasks to exclude from learning, besides the recipe's unseen ones. Neither their photos nor phrases with a
        word of their names are used.  plan: the result of `plan_tasks`, if it was already called.  executor: runs the
        steps, by default in this process.  step: resources of each step, where they differ from the recipe's.

        Raises UsageError if `out` contains something other than a pack, and UnknownName, BadFile, Mismatch or
        Unavailable for every error that can be detected this early.
        """
        if out:
            out = followed(out)
            check_replaceable(out)
        plan = plan or plan_tasks(host, recipe, data, runtime)
        model = host.backbones[recipe.backbone].load(settings.runtime(runtime or RuntimeConfig(), recipe.backbone))
        executor = executor or InProcess()
        resources = resources_of((step or StepConfig()).over(recipe.resources), executor.name, model.device.type)
        executor.check(resources)
        layout = Layout(tuple(model.sites), recipe.lora.rank, recipe.lora.alpha)
        if recipe.train.hide:
            hiding(model)
        photos = [photo for task in apart for some in task.photos.values() for photo in some]
        tasks = build_tasks(model, plan, recipe.prompts, recipe.train.mirror > 0, photos)
        steps = Steps(model, layout, tasks, recipe.train)
        target = out or built_folder() / recipe.name
        return cls(
            host,
            recipe,
            model,
            tasks,
            steps,
            target,
            note,
            Journal(log),
            pool_tasks(recipe, tasks, apart),
            runtime or RuntimeConfig(),
            executor,
            resources,
        )

    @cached_property
    def fits(self) -> Fits:
        """The files of the generators' fits."""
        return Fits(self.recipe, self.steps, self.pool_tasks)

    @cached_property
    def _bank(self) -> Bank:
        return Bank(self.model, self.steps.seen)

    def moments(self) -> Moments:
        """Compute the moments of the tasks that the pack learns from, without phrases."""
        return moments(self._bank, [t for t in self.pool_tasks if t.role != PHRASE])

    def estimate(self) -> Estimate:
        """Estimate time, memory and disk space of the unfinished steps from a few measured steps."""
        return estimated(self.host, self.recipe, self.model, self.tasks, self.steps, self.target)

    def task_lines(self) -> list[str]:
        """Describe photos that tasks share, photos left out of training, and phrases from captions, as sentences."""
        return [*overlap_lines(self.tasks), *phrase_lines(self.pool_tasks)]

    def to_json(self) -> dict[str, Any]:
        """Return the tasks and photos of the build by role, as JSON values."""
        roles: dict[str, dict[str, int]] = {}
        for t in self.tasks:
            count = roles.setdefault(t.role, {"tasks": 0, "photos": 0})
            count["tasks"] += 1
            count["photos"] += len(t.photos) + (len(t.test.photos) if t.test else 0)
        return {
            "recipe": self.recipe.name,
            "backbone": self.recipe.backbone,
            "roles": roles,
            "phrases": sum(t.role == PHRASE for t in self.pool_tasks),
            "left_out": {t.task.key: len(t.left_out) for t in self.tasks if t.left_out},
            "epochs": self.recipe.train.epochs,
            "generators": list(self.recipe.generators),
        }

    @cache.lease()
    def run(self) -> Path:
        """Run the unfinished steps and put the pack in its place, replacing an older one. Returns its folder.

        Raises UsageError if the place contains something other than an unchanged pack.
        """
        check_replaceable(self.target)
        started = time.monotonic()
        photos = sum(len(t.photos) for t in self.tasks)
        total = f"{counted(len(self.tasks), 'task')}, {counted(photos, 'training photo')}"
        self.note(f"{total}, {self.steps.layout.size} parameters per adapter")
        for line in self.task_lines():
            self.note(line)
        if (old := self._replaced()) is not None and old.manifest["recipe"] != self.recipe.raw:
            self.note(f"replacing the pack in {self.target}, which was built from a different recipe or version of it")
        self.journal("build", recipe=self.recipe.name, tasks=len(self.tasks), photos=photos, target=str(self.target))
        self._perform("features", feature_steps(self.tasks, self.resources))
        self.note(f"features: {time.monotonic() - started:.0f} s")
        self._train()
        self.note(f"adapters: {time.monotonic() - started:.0f} s")
        with pack_lock(self.target), scratch_folder(self.target) as folder:
            self._write(folder)
            check_replaceable(self.target)  # again, because the build may have taken hours
            put_folder(folder, self.target)
        self.fits.drop()  # another version of a generator must not reuse them
        self.journal("built", seconds=round(time.monotonic() - started, 3))
        self.note(f"built in {time.monotonic() - started:.0f} s")
        return self.target

    def _replaced(self) -> Pack | None:
        """Return the pack that the new one will replace, or None if there is none that can be opened."""
        with suppress(SgloraError):
            return Pack(self.target)
        return None

    def _train(self) -> None:
        missing = self.steps.missing(self.resources)
        keys = {step.key for step in missing}
        groups = zip(self.steps.group_paths, self.steps.groups, strict=True)
        if trained := sum(len(group) for path, group in groups if path.stem not in keys):
            self.note(f"already trained: {counted(trained, 'task')}")
        self._perform("training", missing)

    def _perform(self, what: str, steps: Sequence[Step], experts: ExpertShards | None = None) -> None:
        """Run steps on the executor.

        experts: for fits in this process. Raises Unavailable if a result is not visible here afterwards.
        """
        if not steps:
            return
        local = self.executor.name == LOCAL
        shows_itself = local and experts is not None  # a fit in this process
        total = sum(step.units for step in steps)
        shown = nullcontext(_nothing) if shows_itself else working(what, total)
        with nullcontext() if local else Driver.here() as driver, shown as advance:
            counts = self.executor.run(self._job(driver, experts), steps, advance, self.journal)
        if not local:
            check_results(steps, self.executor.name, counts)
            self.note(f"{what}: {counted(sum(counts.values()), 'step')}, {summary(counts)}")

    def _job(self, driver: Driver | None, experts: ExpertShards | None) -> BuildJob:
        def fitting() -> Fitting:
            assert experts is not None, "only fits read experts"
            return Fitting(self.host, self.recipe, self.steps, self.pool_tasks, self._bank, experts, self.note)

        here = None if driver else Worker(self.steps, fitting)
        names = [path.stem for path in (*self.steps.paths, *map(self.fits.path, self.recipe.generators))]
        key = content_hash(names, self.model.fingerprint)
        runtime = replace(self.runtime, device=self.model.device.type)  # also for workers that have other devices
        return BuildJob(key, self.recipe, runtime, self.tasks, self.pool_tasks, self.model.fingerprint, driver, here)

    def _write(self, folder: Path) -> None:
        """Write the files of the pack. Only fitting the generators takes long."""
        experts = write_experts(folder, self.steps)
        save_tensors(
            folder / "joint.safetensors",
            {"joint": self.steps.joint_P},
            {"kind": "joint", "fingerprint": self.model.fingerprint},
        )
        save_learned_of(folder, self.tasks)
        self._perform("generators", self.fits.missing(self.resources), experts)
        health = self._write_generators(folder)
        for t in progress(self.tasks, "evaluation"):
            if t.test:
                self._write_evaluation(folder, t, t.test)
        # Written last, because they would reveal left-out tasks to the fit of a generator.
        save_moments(folder, self.moments())
        self._write_tasks(folder)
        write_manifest(folder, self._manifest(health))

    def _write_generators(self, folder: Path) -> dict[str, Any]:
        """Write the fitted generators. Returns their health, by name."""
        health: dict[str, Any] = {}
        for name in self.recipe.generators:
            if (fit := stored_fit(self.fits.path(name))) is None:
                raise Unavailable(f"the fit of generator {name!r} was removed during the build", "build again")
            tensors, metadata = fit
            health[name] = metadata["health"]
            save_tensors(folder / "generators" / f"{name}.safetensors", tensors, {"kind": "generator", "name": name})
        return health

    def _write_evaluation(self, folder: Path, t: BuildTask, test: Features) -> None:
        content = test.stored(self.model).to(torch.device("cpu"))
        tensors = {"stem": content.stem_N, "text": content.text_CD.half(), "oracle": self.steps.moments(t)[0]}
        captions = list(t.task.classes) or [c for photo in test.photos for c in photo.captions]
        metadata = {"kind": "evaluation", "task": t.task.key, "captions": captions, "image_of": list(test.image_of)}
        metadata["photos"] = list(test.hashes)
        if test.label_of:
            metadata["label_of"] = list(test.label_of)
        save_tensors(folder / "evaluation" / file_name(t.task.key), tensors, metadata)

    def _write_tasks(self, folder: Path) -> None:
        listed = {role: [t.to_json() for t in tasks] for role, tasks in self._by_role().items()}
        listed[EXPERT] = [{**task, "states": self.steps.kept} for task in listed[EXPERT]]
        for role, tasks in listed.items():
            write_tasks(folder, role, tasks, self._shards(role))
        seen = thinned([tasks for role, tasks in listed.items() if role != UNSEEN])
        keys, sentences = ([task[of] for task in seen] for of in ("key", "description"))
        SeenTasks.measured(keys, sentences, partial(meaning, self.model)).save(folder)

    def _by_role(self) -> dict[str, list[BuildTask]]:
        return {role: [t for t in self.tasks if t.role == role] for role in ROLES}

    def _shards(self, role: str) -> list[int]:
        """Return the number of tasks of a role in each file."""
        return expert_shards(self.steps) if role == EXPERT else parts(len(self._by_role()[role]))

    def _manifest(self, health: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.recipe.name,
            "made_by": f"sglora {__version__}",
            "recipe": self.recipe.raw,
            "backbone": self.recipe.backbone,
            "fingerprint": self.model.fingerprint,
            "layout": self.steps.layout.to_json(),
            "prior": asdict(self.recipe.prior),
            "default_generator": self.recipe.default_generator,
            "generators": dict(health),
            "counts": {role: len(tasks) for role, tasks in self._by_role().items()},
            "shards": self._shards(EXPERT),
        }


def save_learned_of(folder: Path, tasks: Sequence[BuildTask]) -> None:
    """Write the hashes of the photos that the tasks of each role learn from."""
    save_learned(folder, {role: [h for t in tasks if t.role == role for h in t.train.hashes] for role in ROLES})


def _nothing(units: float, part: str) -> None:
    pass
