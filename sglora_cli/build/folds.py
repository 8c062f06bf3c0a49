"""Cross-validation: rebuilds a pack's recipe without each fold of tasks, and measures the build on that fold.

The tasks of all roles are dealt into folds, source by source. In the build without a fold, the remaining experts stay
experts and all other tasks become training tasks. A task that was left out is measured on all its photos, because the
build has seen none of them. It has no Oracle, because no photos are left to train one on.

The builds are stored in the folder `folds` of the user cache, each under the hash of its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from sglora_cli.bench.methods import BenchPlan
from sglora_cli.bench.plan import plan_of_tasks
from sglora_cli.bench.request import BenchRequest
from sglora_cli.bench.tasks import Offered, narrowed, of_task, offered
from sglora_cli.build.estimate import Estimate
from sglora_cli.build.pipeline import Build, Note
from sglora_cli.build.pool_tasks import phrase_key
from sglora_cli.config import ABLATIONS, BenchConfig, RuntimeConfig, StepConfig
from sglora_cli.errors import BadFile, Mismatch, SgloraError, UnknownName, UsageError
from sglora_cli.files.atomic import drop_folder
from sglora_cli.files.hashes import content_hash
from sglora_cli.pack.content.manifest import MANIFEST
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.recipe import Recipe
from sglora_cli.pack.recipe_parser import parse
from sglora_cli.plugin.contracts import Executor
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import EXPERT, ROLES, TRAINING, UNSEEN, Task
from sglora_cli.system import settings
from sglora_cli.system.display import counted
from sglora_cli.system.locks import pack_lock
from sglora_cli.system.paths import cache_folder, data_folder


@dataclass(frozen=True)
class Folds:
    """A pack, its recipe, and the number of folds for the recipe's tasks."""

    loaded: LoadedPack
    recipe: Recipe
    data: Path
    count: int
    request: BenchRequest
    runtime: RuntimeConfig
    note: Note
    executor: Executor | None
    step: StepConfig | None

    @classmethod
    def of(
        cls,
        host: Host,
        request: BenchRequest,
        count: int,
        runtime: RuntimeConfig,
        note: Note = lambda text: None,
        executor: Executor | None = None,
        step: StepConfig | None = None,
    ) -> Folds:
        """Return the folds of the requested pack without building anything.

        executor, step: see `Build.prepare`.
        Raises UsageError for options that folds do not support, Unavailable without photos, and Mismatch for too few
        tasks.
        """
        excluded = {
            "--on": request.on,
            "--adapter": request.adapters,
            "--role training": request.role != UNSEEN,
            "--own-expert": request.own_expert,
            f"--table {request.table}": request.table in ABLATIONS,
        }
        for option in (option for option, given in excluded.items() if given):
            raise UsageError(f"{option} cannot be combined with --folds, which builds its own packs", "pass only one")
        data = data_folder(request.data, settings.load().data)
        loaded = LoadedPack.open(host, request.pack, runtime, request.backbone)
        recipe = parse(loaded.pack.name, loaded.pack.manifest["recipe"])
        folds = cls(loaded, recipe, data, count, request, runtime, note, executor, step)
        if count > (tasks := len(folds.fold_of)):
            raise Mismatch(
                f"{count} folds are too many for the {counted(tasks, 'task')} of recipe {recipe.name!r}",
                "use fewer folds",
            )
        if request.dataset:
            names = [source.name for source in recipe.sources]
            if request.dataset not in names:
                raise UnknownName.of("source of this pack's recipe", request.dataset, names)
        for fold in range(count):
            folds.seen(fold)  # raises before anything is built
        return folds

    @cached_property
    def fold_of(self) -> Mapping[tuple[int, str], int]:
        """(source, task) -> the fold that leaves it out. Each fold has tasks of every source that has enough."""
        tasks = [
            (n, name) for n, source in enumerate(self.recipe.sources) for role in ROLES for name in source.roles[role]
        ]
        return {task: n % self.count for n, task in enumerate(tasks)}

    def seen(self, fold: int) -> Recipe:
        """Return the recipe without a fold's tasks.

        Raises Mismatch if it cannot be built, for example with too few experts.
        """

        def kept(source: int, names: Sequence[str]) -> list[str]:
            return [name for name in names if self.fold_of[source, name] != fold]

        sources = [
            {
                **raw,
                EXPERT: kept(n, source.roles[EXPERT]),
                TRAINING: kept(n, (*source.roles[TRAINING], *source.roles[UNSEEN])),
                UNSEEN: [],
            }
            for n, (raw, source) in enumerate(zip(self.recipe.raw["source"], self.recipe.sources, strict=True))
        ]
        try:
            return parse(self.recipe.name, {**self.recipe.raw, "source": sources})
        except BadFile as error:
            raise Mismatch(
                f"recipe {self.recipe.name!r} cannot be built without fold {fold + 1} of {self.count}: {error.message}",
                "use more folds",
            ) from None

    def _tasks(self, fold: int) -> list[Task]:
        """Return the tasks of a fold, with all their photos as test photos."""
        tasks: list[Task] = []
        for n, source in enumerate(self.recipe.sources):
            if names := tuple(name for (of, name), out in self.fold_of.items() if (of, out) == (n, fold)):
                whole = replace(source, roles={TRAINING: names}, whole=True)
                tasks += whole.tasks(self.loaded.host, self.data, self.recipe.template)[TRAINING]
        return [replace(task, photos={"test": task.photos["train"]}) for task in tasks]

    def left_out(self, fold: int) -> list[Offered]:
        """Return the tasks of a fold to measure on, with all their photos."""
        wanted = [task for task in self._tasks(fold) if self.request.dataset in ("", task.dataset)]
        return offered(wanted, partial(of_task, self.loaded.model, prompts=self.recipe.prompts))

    def build(self, fold: int) -> Build:
        """Prepare the build without a fold's tasks and without their photos, which other tasks may share.

        Nothing is computed yet. The target of a finished build has a manifest.
        """
        apart = self._tasks(fold)
        build = Build.prepare(
            self.loaded.host,
            self.seen(fold),
            self.data,
            self.note,
            runtime=self.runtime,
            apart=apart,
            executor=self.executor,
            step=self.step,
        )
        steps = [path.stem for path in build.steps.paths]
        described = [t.task.description for t in build.tasks]
        phrases = phrase_key(build.pool_tasks)  # they depend on the names of the left-out tasks
        key = content_hash(build.recipe.raw, build.model.fingerprint, steps, described, *phrases)
        return replace(build, target=cache_folder() / "folds" / key)

    def estimates(self) -> list[tuple[Build, Estimate | None]]:
        """Return the build of each fold with the estimate of its unfinished steps, or None for a finished build."""
        builds = [self.build(fold) for fold in range(self.count)]
        return [(build, None if _is_done(build) else build.estimate()) for build in builds]

    def plan(self, config: BenchConfig) -> BenchPlan:
        """Build what is missing, and plan to measure every task with the build that has not seen it."""
        fold_of = {task: fold for fold in range(self.count) for task in self.left_out(fold)}
        measured = narrowed(list(fold_of), self.loaded.pack, self.request.tasks, self.request.table)
        fold_of_key = {task.key: fold for task, fold in fold_of.items()}
        plans: list[BenchPlan] = []
        for fold in range(self.count):
            if own := [task for task in measured if fold_of_key[task.key] == fold]:
                pack = Pack(self._built(fold))
                plans.append(plan_of_tasks(self.loaded.with_pack(pack), self.request, own, config))
        return _together(plans, self.recipe.name, self.count)

    def _built(self, fold: int) -> Path:
        build = self.build(fold)
        if _is_done(build):
            return build.target
        with pack_lock(build.target):
            if build.target.exists() and not _is_done(build):
                drop_folder(build.target)  # damaged
        self.note(f"fold {fold + 1} of {self.count}")
        return build.run()


def plan_of_folds(
    host: Host, request: BenchRequest, count: int, runtime: RuntimeConfig, config: BenchConfig
) -> BenchPlan:
    """Return the plan of folds that are already built, for a worker."""
    return Folds.of(host, request, count, runtime).plan(config)


def _is_done(build: Build) -> bool:
    """Return whether the build is finished and its files are unchanged."""
    try:
        return (build.target / MANIFEST).is_file() and not Pack(build.target).verify()
    except SgloraError:
        return False


def _together(plans: Sequence[BenchPlan], recipe: str, folds: int) -> BenchPlan:
    """Merge the plans of all folds into one."""
    parts = {(task.dataset, task.name): plan.parts for plan in plans for task in plan.tasks}
    notes = [
        f"{folds} folds of recipe {recipe!r}: each task is measured on all its photos, with a build that left it out",
        *dict.fromkeys(note for plan in plans for note in plan.notes),
    ]
    return replace(
        plans[0],
        tasks=[task for plan in plans for task in plan.tasks],
        parts=lambda task: parts[task.dataset, task.name](task),
        notes=notes,
        origin=[plan.origin for plan in plans],
    )
