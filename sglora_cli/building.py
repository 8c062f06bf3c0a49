"""Recipe -> pack, in steps that can be interrupted: what a step finished is never done again.

Steps: features of every task, the warm-up, adapters of every task, the joint adapter, experts and
index, generators, evaluation. Finished steps lie in the folder
`work` of the user cache, each under the hash of everything it follows from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sglora_cli import __version__, settings
from sglora_cli.adapters import Layout
from sglora_cli.configs import RuntimeConfig
from sglora_cli.contracts import Material, Model, Task
from sglora_cli.errors import BadFile
from sglora_cli.features import task_tensors
from sglora_cli.files import content_hash, load_tensors, put_folder, save_tensors, scratch_folder
from sglora_cli.host import Host
from sglora_cli.packs import FORMAT, ExpertFiles, file_name, seal
from sglora_cli.progressing import progress
from sglora_cli.recipes import Recipe, planned
from sglora_cli.semantics import check_text, meaning, prior
from sglora_cli.settings import cache_folder
from sglora_cli.shelves import built_folder
from sglora_cli.training import TaskTensors, train_joint, train_tasks, warm_up

Note = Callable[[str], None]


@dataclass(frozen=True)
class BuildTask:
    """A task with its role and what the frozen parts make of its photos."""

    task: Task
    role: str
    train: TaskTensors
    test: TaskTensors | None


def build(
    host: Host,
    recipe: Recipe,
    data: Path,
    note: Note,
    out: Path | None = None,
    runtime: RuntimeConfig | None = None,
) -> Path:
    """Build the pack and put it in its place, replacing an older one; returns its folder.

    Raises UnknownName, BadFile, Unavailable before anything is trained.
    """
    started = time.monotonic()
    plan = planned(host, recipe, data)
    backbone = host.backbones[recipe.backbone]
    model = backbone.load(settings.runtime(runtime or RuntimeConfig(), recipe.backbone))
    layout = Layout(tuple(model.sites), recipe.lora.rank, recipe.lora.alpha)
    tasks = _features(model, plan, recipe.prompts)
    note(f"features: {time.monotonic() - started:.0f} s")
    note(f"{len(tasks)} tasks, {sum(len(t.train.stem_N) for t in tasks)} training photos, {layout.size} numbers each")

    states = _States(model, layout, tasks, recipe)
    states.train(note)
    joint_P = states.joint()
    note(f"adapters: {time.monotonic() - started:.0f} s")

    target = out or built_folder() / recipe.name
    with scratch_folder(target) as folder:
        experts, index_ED = _write_experts(folder, model, layout, tasks, states)
        save_tensors(
            folder / "joint.safetensors", {"joint": joint_P}, {"kind": "joint", "fingerprint": model.fingerprint}
        )
        health = _fit_generators(folder, host, recipe, model, tasks, states, experts, index_ED, joint_P, note)
        _write_evaluation(folder, tasks, states)
        manifest = _manifest(recipe, model, layout, tasks, health)
        seal(folder, manifest)
        put_folder(folder, target)
    note(f"built in {time.monotonic() - started:.0f} s")
    return target


def _features(model: Model, plan: Sequence[Mapping[str, Sequence[Task]]], prompts: Sequence[str]) -> list[BuildTask]:
    wanted = [(role, task) for roles in plan for role, tasks in roles.items() for task in tasks]
    for _, task in wanted:
        check_text(model, task.description)
        if len(task.photos["train"]) < 2:
            raise BadFile(
                f"task {task.key} has {len(task.photos['train'])} training photo(s), it needs two", "remove it"
            )
    found = []
    for role, task in progress(wanted, "features"):
        test_photos, classes = task.photos["test"] if role == "unseen" else (), (task.classes, prompts)
        test = task_tensors(model, task.key, test_photos, *classes) if test_photos else None
        found.append(BuildTask(task, role, task_tensors(model, task.key, task.photos["train"], *classes), test))
    return found


class _States:
    """The last M adapters of every task, on disk as soon as they are trained."""

    def __init__(self, model: Model, layout: Layout, tasks: Sequence[BuildTask], recipe: Recipe) -> None:
        self.model, self.layout, self.config, self.tasks = model, layout, recipe.train, tasks
        settings = {k: v for k, v in asdict(recipe.train).items() if k != "tasks_at_once"}
        self.follows_from: list[Any] = [model.fingerprint, layout.about(), settings]
        self.start_P = self._start(settings)

    def _start(self, settings: Mapping[str, Any]) -> Tensor:
        """(P,) where every task starts: warmed up on the experts only, so training tasks stay unseen to it."""
        experts = [t.train for t in self.tasks if t.role == "expert"]
        if not self.config.warmup_epochs:
            return warm_up(self.model, self.layout, experts, self.config)
        used = {k: v for k, v in settings.items() if k not in ("epochs", "states", "learning_rate", "joint_epochs")}
        path = self._path(*experts, follows_from=["warm-up", *self.follows_from[:2], used])
        if not path.exists():
            start_P = warm_up(self.model, self.layout, experts, self.config)
            save_tensors(path, {"start": start_P}, {"kind": "start"})
        self.follows_from.append(path.stem)  # what is trained from here depends on the experts, too
        return load_tensors(path, ("start",))[0]["start"]

    def _path(self, *tensors: TaskTensors, follows_from: Sequence[Any] = ()) -> Path:
        parts: list[Any] = [x for t in tensors for x in (t.name, t.stem_N, t.text_CD, t.image_of, t.label_of)]
        if len(tensors) > 1:  # for an adapter of many tasks, how many tasks make a step is part of the method
            parts.append(self.config.tasks_at_once)
        key = content_hash(list(follows_from or self.follows_from), *parts)
        return cache_folder() / "work" / f"{key}.safetensors"

    def train(self, note: Note) -> None:
        missing = [t.train for t in self.tasks if not self._path(t.train).exists()]
        if len(missing) < len(self.tasks):
            note(f"{len(self.tasks) - len(missing)} tasks were trained before")
        for task, states_MP in train_tasks(self.model, self.layout, missing, self.config, self.start_P):
            save_tensors(self._path(task), {"states": states_MP}, {"kind": "states", "task": task.name})

    def of(self, task: BuildTask) -> Tensor:
        """(M, P)."""
        return load_tensors(self._path(task.train), ("states",))[0]["states"]

    def joint(self) -> Tensor:
        """(P,) trained on experts and training tasks; nothing of an unseen task."""
        seen = [t.train for t in self.tasks if t.role != "unseen"]
        path = self._path(*seen, follows_from=["joint", *self.follows_from])
        if not path.exists():
            joint_P = train_joint(self.model, self.layout, seen, self.config)
            save_tensors(path, {"joint": joint_P}, {"kind": "joint"})
        return load_tensors(path, ("joint",))[0]["joint"]


def _write_experts(
    folder: Path, model: Model, layout: Layout, tasks: Sequence[BuildTask], states: _States
) -> tuple[ExpertFiles, Tensor]:
    chosen = [t for t in tasks if t.role == "expert"]
    for t in chosen:
        states_MP = states.of(t).double()
        about = {"kind": "expert", "task": t.task.key, "description": t.task.description, "states": len(states_MP)}
        tensors = {"mu": states_MP.mean(dim=0).float(), "var": states_MP.var(dim=0, correction=0).float()}
        save_tensors(folder / "experts" / file_name(t.task.key), tensors, about)
    index_ED = model.encode_text([t.task.description for t in chosen]).float()
    meaning_EW = meaning(model, [t.task.description for t in chosen])
    save_tensors(
        folder / "index.safetensors",
        {"index": index_ED, "meaning": meaning_EW},
        {"kind": "index", "tasks": [t.task.key for t in chosen]},
    )
    return ExpertFiles(folder / "experts", [t.task.key for t in chosen], layout), index_ED


def _fit_generators(
    folder: Path,
    host: Host,
    recipe: Recipe,
    model: Model,
    tasks: Sequence[BuildTask],
    states: _States,
    experts: ExpertFiles,
    index_ED: Tensor,
    joint_P: Tensor,
    note: Note,
) -> dict[str, Any]:
    chosen = [t for t in tasks if t.role == "training"]
    embeddings = model.encode_text([t.task.description for t in chosen]) if chosen else ()
    material = Material(
        experts=experts,
        tasks=[t.task.key for t in chosen],
        states=lambda t: states.of(chosen[t]),
        priors=[prior(d, index_ED, experts, recipe.prior) for d in embeddings],
        joint_P=joint_P,
        seed=recipe.train.seed,
        note=note,
    )
    health = {}
    for name, table in recipe.generators.items():
        fitted, health[name] = host.generators[name].fit(material, table)
        save_tensors(
            folder / "generators" / f"{name}.safetensors", fitted.tensors(), {"kind": "generator", "name": name}
        )
    return health


def _write_evaluation(folder: Path, tasks: Sequence[BuildTask], states: _States) -> None:
    for t in tasks:
        if t.role == "unseen" and t.test is not None:
            tensors = {
                "stem": t.test.stem_N.half(),
                "text": t.test.text_CD.half(),
                "oracle": states.of(t).double().mean(dim=0).float(),
            }
            captions = list(t.task.classes) or [c for photo in t.task.photos["test"] for c in photo.captions]
            about = {"kind": "evaluation", "task": t.task.key, "captions": captions, "image_of": list(t.test.image_of)}
            if t.test.label_of:
                about["label_of"] = list(t.test.label_of)
            save_tensors(folder / "evaluation" / file_name(t.task.key), tensors, about)


def _manifest(
    recipe: Recipe,
    model: Model,
    layout: Layout,
    tasks: Sequence[BuildTask],
    health: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": recipe.name,
        "made_by": f"sglora {__version__}",
        "recipe": recipe.raw,
        "backbone": recipe.backbone,
        "fingerprint": model.fingerprint,
        "layout": layout.about(),
        "prior": asdict(recipe.prior),
        "default_generator": recipe.default_generator,
        "generators": dict(health),
        "tasks": [
            {
                "key": t.task.key,
                "dataset": t.task.dataset,
                "name": t.task.name,
                "role": t.role,
                "description": t.task.description,
                "train_photos": len(t.train.stem_N),
                "test_photos": len(t.task.photos["test"]),
            }
            for t in tasks
        ],
    }


def plan(host: Host, recipe: Recipe, data: Path) -> dict[str, Any]:
    """What a build would do, without doing it: tasks and photos by role."""
    backbone = host.backbones[recipe.backbone]
    roles: dict[str, dict[str, int]] = {}
    for source in planned(host, recipe, data):
        for role, tasks in source.items():
            count = roles.setdefault(role, {"tasks": 0, "photos": 0})
            count["tasks"] += len(tasks)
            count["photos"] += sum(len(photos) for task in tasks for photos in task.photos.values())
    return {
        "recipe": recipe.name,
        "backbone": backbone.name,
        "roles": roles,
        "adapters_to_train": sum(count["tasks"] for count in roles.values()) + 1 + bool(recipe.train.warmup_epochs),
        "epochs": recipe.train.epochs,
        "generators": list(recipe.generators),
        "target": str(built_folder() / recipe.name),
    }
