"""Builds a pack from a recipe, in steps that survive a kill: a finished step is never repeated.

The steps are the features of every task, the warm-up, the adapters of every task, the joint adapter (steps.py), the
generators, and finally the pack's folder. The same recipe and photos produce identical files, also after interruptions,
on one machine with one number of threads. Other arithmetic rounds differently, and training amplifies the difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli import __version__
from sglora_cli.build.bank import Bank
from sglora_cli.build.estimate import Estimate, estimated
from sglora_cli.build.held_out import recall_on, scored
from sglora_cli.build.moments import moments
from sglora_cli.build.pool import Pool
from sglora_cli.build.pool_tasks import PoolTask, phrase_key, phrase_lines, pool_tasks
from sglora_cli.build.prerequisites import plan_tasks
from sglora_cli.build.steps import Steps, work_folder
from sglora_cli.build.tasks import BuildTask, build_tasks, missing_features, overlap_lines
from sglora_cli.build.training import hiding
from sglora_cli.config import RuntimeConfig
from sglora_cli.data.encode import image_embeddings, mean_direction
from sglora_cli.data.features import Features
from sglora_cli.errors import BadFile, SgloraError
from sglora_cli.files.atomic import put_folder, scratch_folder
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.tensors import Checkpoint, load_sealed, save_sealed, save_tensors
from sglora_cli.lora.gauge import gauge_of
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import Index, Prior, prior
from sglora_cli.pack.content.format_two import save_visual
from sglora_cli.pack.content.gauge import save_gauge
from sglora_cli.pack.content.learned import save_learned
from sglora_cli.pack.content.manifest import FORMAT
from sglora_cli.pack.content.moments import save_moments
from sglora_cli.pack.content.names import file_name
from sglora_cli.pack.content.shards import ExpertShards, save_shard, shard_rows
from sglora_cli.pack.content.tasks import parts, write_tasks
from sglora_cli.pack.coverage import SeenTasks, thinned
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.recipe import Recipe
from sglora_cli.pack.writer import check_replaceable, write_manifest
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import meaning, queries
from sglora_cli.plugin.values import EXPERT, PHRASE, ROLES, TRAINING, UNSEEN, Material, Moments, Task
from sglora_cli.system import cache, settings
from sglora_cli.system.locks import locked, pack_lock
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
    ) -> Build:
        """Read the recipe and all photos and load the backbone. Nothing is computed or written yet.

        apart: tasks to exclude from learning, besides the recipe's unseen ones. Neither their photos nor phrases with a
        word of their names are used.  plan: the result of `plan_tasks`, if it was already called.

        Raises UsageError if `out` contains something other than a pack, and UnknownName, BadFile, Mismatch or
        Unavailable for every error that can be detected this early.
        """
        if out:
            check_replaceable(out)
        plan = plan or plan_tasks(host, recipe, data, runtime)
        model = host.backbones[recipe.backbone].load(settings.runtime(runtime or RuntimeConfig(), recipe.backbone))
        layout = Layout(tuple(model.sites), recipe.lora.rank, recipe.lora.alpha)
        if recipe.train.hide:
            hiding(model)
        photos = [photo for task in apart for some in task.photos.values() for photo in some]
        tasks = build_tasks(model, plan, recipe.prompts, recipe.train.mirror > 0, photos)
        steps = Steps(model, layout, tasks, recipe.train)
        target = out or built_folder() / recipe.name
        return cls(host, recipe, model, tasks, steps, target, note, Journal(log), pool_tasks(recipe, tasks, apart))

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
        self.note(f"{len(self.tasks)} tasks, {photos} training photos, {self.steps.layout.size} parameters per adapter")
        for line in self.task_lines():
            self.note(line)
        if (old := self._replaced()) is not None and old.manifest["recipe"] != self.recipe.raw:
            self.note(f"replacing the pack in {self.target}, which was built from a different recipe or version of it")
        self.journal("build", recipe=self.recipe.name, tasks=len(self.tasks), photos=photos, target=str(self.target))
        compute_features(self.model, self.tasks, self.journal)
        self.note(f"features: {time.monotonic() - started:.0f} s")
        self._adapters()
        self.note(f"adapters: {time.monotonic() - started:.0f} s")
        with pack_lock(self.target), scratch_folder(self.target) as folder:
            self._write(folder)
            check_replaceable(self.target)  # again, because the build may have taken hours
            put_folder(folder, self.target)
        for name in self.recipe.generators:
            with locked(path := self._generator_path(name)):
                path.unlink(missing_ok=True)  # another version of the generator must not reuse it
        self.journal("built", seconds=round(time.monotonic() - started, 3))
        self.note(f"built in {time.monotonic() - started:.0f} s")
        return self.target

    def _replaced(self) -> Pack | None:
        """Return the pack that the new one will replace, or None if there is none that can be opened."""
        with suppress(SgloraError):
            return Pack(self.target)
        return None

    def _adapters(self) -> None:
        missing = [path for path in self.steps.paths if not self.steps.done(path)]
        trained = sum(
            len(group)
            for path, group in zip(self.steps.group_paths, self.steps.groups, strict=True)
            if path not in missing
        )
        if trained:
            self.note(f"{trained} tasks are already trained")
        with working("training", sum(self.steps.passes(path) for path in missing)) as advance:
            self.steps.train(advance, self.journal)

    def _write(self, folder: Path) -> None:
        """Write the files of the pack. Only fitting the generators takes long."""
        experts = self._write_experts(folder)
        save_tensors(
            folder / "joint.safetensors",
            {"joint": self.steps.joint_P},
            {"kind": "joint", "fingerprint": self.model.fingerprint},
        )
        save_learned_of(folder, self.tasks)
        health = self._fit_generators(folder, experts)
        for t in progress(self.tasks, "evaluation"):
            if t.test:
                self._write_evaluation(folder, t, t.test)
        # Written last, because they would reveal left-out tasks to the fit of a generator.
        save_moments(folder, self.moments())
        self._write_tasks(folder)
        write_manifest(folder, self._manifest(health))

    def _write_experts(self, folder: Path) -> ExpertShards:
        layout, tasks = self.steps.layout, self.steps.experts
        sentences = [t.task.description for t in tasks]
        index_ED, meaning_EW = self.model.encode_text(sentences).float(), meaning(self.model, sentences)
        first, shards = 0, self._shards(EXPERT)
        for shard, count in enumerate(shards):
            some = slice(first, first := first + count)
            found = [self.steps.moments(t) for t in tasks[some]]
            mean_NP, variance_NP = (torch.stack(numbers) for numbers in zip(*found, strict=True))
            described = {"index": index_ED[some], "meaning": meaning_EW[some]}
            save_shard(folder, shard, {"mu": mean_NP, "var": variance_NP, **described})
        experts = ExpertShards(folder, shards, [t.task.key for t in tasks], layout)
        save_gauge(folder, gauge_of(layout, lambda: (mean_NP for mean_NP, _ in experts.chunks())))
        save_visual(folder, self._visual())
        return experts

    def _visual(self) -> Tensor:
        """Return the normalised mean embedding of each expert's training photos (E, D), the visual condition."""
        visual = []
        for t in progress(self.steps.experts, "photos of experts"):
            image_ND = image_embeddings(self.model, t.train.stored(self.model).stem_N)
            visual.append(mean_direction([1.0] * len(image_ND), image_ND))
        return torch.stack(visual)

    def _generator_path(self, name: str) -> Path:
        steps = [str(path.stem) for path in self.steps.paths]
        phrases = phrase_key(self.pool_tasks)
        key = content_hash(
            "generator 2",
            name,
            self.recipe.generators[name],
            asdict(self.recipe.prior),
            steps,
            self._descriptions(),
            *phrases,
        )
        return work_folder() / f"{key}.safetensors"

    def _descriptions(self) -> list[str]:
        return [t.task.description for t in self.steps.seen]

    def _fit_generators(self, folder: Path, experts: ExpertShards) -> dict[str, Any]:
        tasks = [t for t in self.tasks if t.role == TRAINING]
        k, tau, space = self.recipe.prior.k, self.recipe.prior.tau, self.recipe.prior.space
        asked, index = queries(self.model, [t.task.description for t in tasks]), Index(experts)
        priors = [prior(one.embedding_D, index.similarity(one, space, k), experts, k, tau) for one in asked]
        pool, health = self._pool(experts, index), {}
        for name, table in self.recipe.generators.items():
            with locked(path := self._generator_path(name)):
                if (kept := _kept(path)) is None:
                    checkpoint = Checkpoint(path.with_suffix(".checkpoint"))
                    material = self._material(tasks, experts, priors, pool, checkpoint)
                    began = time.monotonic()
                    fitted, facts = self.host.generators[name].fit(material, table)
                    scores = scored(self.model, self.host.generators[name], table, material, tasks, self.steps.experts)
                    save_sealed(path, fitted.tensors(), {"health": {**facts, **scores}})
                    kept = load_sealed(path)
                    checkpoint.drop()
                    self.journal("generator", name=name, seconds=round(time.monotonic() - began, 3))
            tensors, metadata = kept
            health[name] = metadata["health"]
            save_tensors(folder / "generators" / f"{name}.safetensors", tensors, {"kind": "generator", "name": name})
        return health

    def _pool(self, experts: ExpertShards, index: Index) -> Pool:
        recipe, row_of = self.recipe, {key: row for row, key in enumerate(experts.names)}

        def prior_of(t: PoolTask) -> Prior:
            (one,) = queries(self.model, [t.description])
            own = [row_of[t.name]] if t.name in row_of else []
            # K + 1 similarities, so that the K largest besides its own are exact.
            similarity_E = index.similarity(one, recipe.prior.space, min(recipe.prior.k + 1, len(experts.names)))
            k = min(recipe.prior.k, len(experts.names) - len(own))
            return prior(one.embedding_D, similarity_E, experts, k, recipe.prior.tau, own)

        least = recipe.phrases.least_photos
        return Pool(self._bank, self.pool_tasks, recipe.train, prior_of, least)

    def _material(
        self,
        tasks: Sequence[BuildTask],
        experts: ExpertShards,
        priors: Sequence[Prior],
        pool: Pool,
        checkpoint: Checkpoint,
    ) -> Material:
        states = [self.steps.states(t) for t in tasks]
        return Material(
            experts=experts,
            tasks=[t.task.key for t in tasks],
            states=lambda t: states[t].to("cpu"),
            rows=lambda t, rows: states[t][rows],
            states_of_task=self.steps.kept,
            priors=priors,
            joint_P=self.steps.joint_P,
            pool=pool,
            start_P=self.steps.start_P if self.recipe.train.warmup_epochs else None,
            recall=recall_on(self.model, self.steps.layout, tasks, self.steps.experts),
            seed=self.recipe.train.seed,
            note=self.note,
            checkpoint=checkpoint,
            device=str(self.model.device),
        )

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
        return parts(len(self._by_role()[role]), *([shard_rows(self.steps.layout)] if role == EXPERT else []))

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


def _kept(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return a stored generator that was already fitted, or None if there is none or its file is damaged."""
    try:
        return load_sealed(path)
    except BadFile:
        path.unlink(missing_ok=True)
        return None


def save_learned_of(folder: Path, tasks: Sequence[BuildTask]) -> None:
    """Write the hashes of the photos that the tasks of each role learn from."""
    save_learned(folder, {role: [h for t in tasks if t.role == role for h in t.train.hashes] for role in ROLES})


def compute_features(model: Model, tasks: Sequence[BuildTask], journal: Journal) -> None:
    """Compute the frozen features of all photos that are not in the cache."""
    missing = missing_features(tasks)
    with working("features", sum(len(features.photos) for features in missing)) as advance:
        for features in missing:
            began = time.monotonic()
            for done in features.compute(model):
                advance(done, features.name)
            seconds = round(time.monotonic() - began, 3)
            journal("features", task=features.name, photos=len(features.photos), seconds=seconds)
