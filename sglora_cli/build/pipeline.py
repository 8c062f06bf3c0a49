"""Recipe -> pack, in steps that survive a kill: a finished step is never repeated.

Steps: features of every task, the warm-up, adapters of every task, the joint adapter (steps.py), generators,
then the pack's folder. The same recipe and photos give the same bytes, also after interruptions, on one machine with
one number of threads: other arithmetic rounds differently, and training amplifies the difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli import __version__
from sglora_cli.build.estimate import Estimate, estimated
from sglora_cli.build.held_out import recall_on, scored
from sglora_cli.build.steps import BuildTask, Steps, missing_features, work_folder
from sglora_cli.build.training import hiding
from sglora_cli.config import RuntimeConfig
from sglora_cli.data.encode import check_text, image_embeddings, mean_direction, meaning
from sglora_cli.data.features import Features
from sglora_cli.errors import BadFile
from sglora_cli.files.atomic import put_folder, scratch_folder
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.tensors import Checkpoint, load_tensors, save_tensors
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import prior
from sglora_cli.pack.manifest import FORMAT
from sglora_cli.pack.pack import ExpertFiles, file_name
from sglora_cli.pack.recipe import Recipe
from sglora_cli.pack.recipe_parser import plan_tasks
from sglora_cli.pack.writer import write_manifest
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import SPLITS, TRAINING, UNSEEN, Material, Task
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
    ) -> Build:
        """Read the recipe and the bytes of all photos, load the backbone. Nothing is computed or written yet.

        Raises UnknownName, BadFile, Mismatch or Unavailable for every error that can be detected this early.
        """
        plan = plan_tasks(host, recipe, data)
        model = host.backbones[recipe.backbone].load(settings.runtime(runtime or RuntimeConfig(), recipe.backbone))
        layout = Layout(tuple(model.sites), recipe.lora.rank, recipe.lora.alpha)
        if recipe.train.hide:
            hiding(model)
        tasks = build_tasks(model, plan, recipe.prompts, recipe.train.mirror > 0)
        steps = Steps(model, layout, tasks, recipe.train)
        return cls(host, recipe, model, tasks, steps, out or built_folder() / recipe.name, note, Journal(log))

    def estimate(self) -> Estimate:
        """The time, memory and disk for what is left to do, measured on a few steps."""
        return estimated(self.host, self.recipe, self.model, self.tasks, self.steps, self.target)

    def to_json(self) -> dict[str, Any]:
        """What is built, as JSON values: tasks and their photos by role."""
        roles: dict[str, dict[str, int]] = {}
        for t in self.tasks:
            count = roles.setdefault(t.role, {"tasks": 0, "photos": 0})
            count["tasks"] += 1
            count["photos"] += len(t.photos) + (len(t.test.photos) if t.test else 0)
        return {
            "recipe": self.recipe.name,
            "backbone": self.recipe.backbone,
            "roles": roles,
            "epochs": self.recipe.train.epochs,
            "generators": list(self.recipe.generators),
        }

    @cache.lease()
    def run(self) -> Path:
        """Do what is left and put the pack in its place, replacing an older one. Returns its folder."""
        started = time.monotonic()
        photos = sum(len(t.photos) for t in self.tasks)
        self.note(f"{len(self.tasks)} tasks, {photos} training photos, {self.steps.layout.size} numbers each")
        self.journal("build", recipe=self.recipe.name, tasks=len(self.tasks), photos=photos, target=str(self.target))
        compute_features(self.model, self.tasks, self.journal)
        self.note(f"features: {time.monotonic() - started:.0f} s")
        self._adapters()
        self.note(f"adapters: {time.monotonic() - started:.0f} s")
        with pack_lock(self.target), scratch_folder(self.target) as folder:
            self._write(folder)
            put_folder(folder, self.target)
        for name in self.recipe.generators:
            with locked(path := self._generator_path(name)):
                path.unlink(missing_ok=True)  # another version of a generator must not use it
        self.journal("built", seconds=round(time.monotonic() - started, 3))
        self.note(f"built in {time.monotonic() - started:.0f} s")
        return self.target

    def _adapters(self) -> None:
        missing = [path for path in self.steps.paths if not path.exists()]
        trained = sum(
            len(group) for path, group in zip(self.steps.group_paths, self.steps.groups, strict=True) if path.exists()
        )
        if trained:
            self.note(f"{trained} tasks were trained before")
        with working("training", sum(self.steps.passes(path) for path in missing)) as advance:
            self.steps.train(advance, self.journal)

    def _write(self, folder: Path) -> None:
        """Write the files of the pack. All but the generators take a moment."""
        experts, index_ED = self._write_experts(folder)
        save_tensors(
            folder / "joint.safetensors",
            {"joint": self.steps.joint_P},
            {"kind": "joint", "fingerprint": self.model.fingerprint},
        )
        health = self._fit_generators(folder, experts, index_ED)
        for t in progress(self.tasks, "evaluation"):
            if t.test:
                self._write_evaluation(folder, t, t.test)
        write_manifest(folder, self._manifest(health))

    def _write_experts(self, folder: Path) -> tuple[ExpertFiles, Tensor]:
        for t in self.steps.experts:
            mean_P, variance_P = self.steps.moments(t)
            metadata = {
                "kind": "expert",
                "task": t.task.key,
                "description": t.task.description,
                "states": self.steps.kept,
            }
            save_tensors(folder / "experts" / file_name(t.task.key), {"mu": mean_P, "var": variance_P}, metadata)
        descriptions, keys = [t.task.description for t in self.steps.experts], [t.task.key for t in self.steps.experts]
        index_ED = self.model.encode_text(descriptions).float()
        index = {"index": index_ED, "meaning": meaning(self.model, descriptions), "visual": self._visual()}
        save_tensors(folder / "index.safetensors", index, {"kind": "index", "tasks": keys})
        return ExpertFiles(folder / "experts", keys, self.steps.layout), index_ED

    def _visual(self) -> Tensor:
        """(E, D) the mean embedding of each expert's training photos, normalised: the visual condition."""
        visual = []
        for t in progress(self.steps.experts, "photos of experts"):
            image_ND = image_embeddings(self.model, t.train.stored(self.model).stem_N)
            visual.append(mean_direction([1.0] * len(image_ND), image_ND))
        return torch.stack(visual)

    def _generator_path(self, name: str) -> Path:
        steps = [str(path.stem) for path in self.steps.paths]
        key = content_hash(name, self.recipe.generators[name], asdict(self.recipe.prior), steps, self._descriptions())
        return work_folder() / f"{key}.safetensors"

    def _descriptions(self) -> list[str]:
        return [t.task.description for t in self.steps.seen]

    def _fit_generators(self, folder: Path, experts: ExpertFiles, index_ED: Tensor) -> dict[str, Any]:
        tasks = [t for t in self.tasks if t.role == TRAINING]
        embeddings = self.model.encode_text([t.task.description for t in tasks]) if tasks else ()
        k, tau = self.recipe.prior.k, self.recipe.prior.tau
        priors = [prior(d, index_ED, experts, k, tau) for d in embeddings]
        health = {}
        for name, table in self.recipe.generators.items():
            with locked(path := self._generator_path(name)):
                if not path.exists():
                    checkpoint = Checkpoint(path.with_suffix(".checkpoint"))
                    material = self._material(tasks, experts, priors, checkpoint)
                    began = time.monotonic()
                    fitted, facts = self.host.generators[name].fit(material, table)
                    facts = {**facts, **scored(self.model, self.host.generators[name], table, material, tasks)}
                    save_tensors(path, fitted.tensors(), {"health": facts})
                    checkpoint.drop()
                    self.journal("generator", name=name, seconds=round(time.monotonic() - began, 3))
                tensors, metadata = load_tensors(path)
            health[name] = metadata["health"]
            save_tensors(folder / "generators" / f"{name}.safetensors", tensors, {"kind": "generator", "name": name})
        return health

    def _material(
        self, tasks: Sequence[BuildTask], experts: ExpertFiles, priors: Sequence[Any], checkpoint: Checkpoint
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
            start_P=self.steps.start_P if self.recipe.train.warmup_epochs else None,
            recall=recall_on(self.model, self.steps.layout, tasks),
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
        if test.label_of:
            metadata["label_of"] = list(test.label_of)
        save_tensors(folder / "evaluation" / file_name(t.task.key), tensors, metadata)

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
            "tasks": [
                {
                    "key": t.task.key,
                    "dataset": t.task.dataset,
                    "name": t.task.name,
                    "role": t.role,
                    "description": t.task.description,
                    "train_photos": len(t.photos),
                    "test_photos": len(t.task.photos["test"]),
                }
                for t in self.tasks
            ],
        }


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


def build_tasks(
    model: Model, plan: Sequence[Mapping[str, Sequence[Task]]], prompts: Sequence[str] = (), mirror: bool = False
) -> list[BuildTask]:
    """Make the tasks of a plan (role -> tasks, of each source). Reads the bytes of every photo.

    Raises BadFile for a task with fewer than two training photos, Mismatch for a description that would be cut.
    """
    planned = [(role, task) for roles in plan for role, tasks in roles.items() for task in tasks]
    for _, task in planned:
        check_text(model, task.description)
        if len(task.photos["train"]) < 2:
            raise BadFile(
                f"task {task.key} has {len(task.photos['train'])} training photo(s), it needs two", "remove it"
            )
    built = []
    for role, task in progress(planned, "reading photos"):
        train, test = (Features.of(model, task.key, task.photos[split], task.classes, prompts) for split in SPLITS)
        mirrored = train.mirror() if mirror else None
        built.append(BuildTask(task, role, train, test if role == UNSEEN and test.photos else None, mirrored))
    return built
