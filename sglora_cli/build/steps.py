"""Trains the adapters of a build's tasks in steps that survive a kill: a finished step is never repeated.

The results of finished steps are stored in the folder `work` of the user cache, each under the hash of its inputs. An
unfinished step has a draft and a checkpoint there.

Shapes: P parameters of an adapter, M states, T tasks of a group.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.build.tasks import BuildTask
from sglora_cli.build.training import JointTraining, OwnTraining, groups
from sglora_cli.config import TrainConfig
from sglora_cli.errors import BadFile
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.tensor_rows import TensorDraft, TensorRows
from sglora_cli.files.tensors import Checkpoint, load_sealed, save_sealed
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.values import EXPERT, UNSEEN, Resources, Step
from sglora_cli.system.locks import locked
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import Advance, Record

TRAINING_STEP = "training"
"""The kind of the steps of this module."""


def work_folder() -> Path:
    """Return the folder of finished and unfinished steps in the user cache."""
    return cache_folder() / "work"


class Steps:
    """The files of the warm-up, of every task's own adapter and of the joint adapter, and their training."""

    def __init__(self, model: Model, layout: Layout, tasks: Sequence[BuildTask], config: TrainConfig) -> None:
        self.model, self.layout, self.config, self.tasks = model, layout, config, tasks
        self.kept = min(config.states, config.epochs)
        self.experts = [t for t in tasks if t.role == EXPERT]
        self.seen = [t for t in tasks if t.role != UNSEEN]
        self.groups = [[tasks[n] for n in group] for group in groups([len(t.photos) for t in tasks], config)]
        shared = [model.fingerprint, layout.to_json(), config.seed, config.batch, config.weight_decay]
        shared += [["shown", config.hide, config.mirror]] if config.hide or config.mirror else []
        together = [*shared, config.joint_learning_rate, config.tasks_at_once]
        self.start_path = self._path(self.experts, "warm-up", together, config.warmup_epochs)
        # Adapters trained from the warm-up also depend on the experts.
        start = self.start_path.stem if config.warmup_epochs else ""
        own = [*shared, start, config.epochs, self.kept, config.learning_rate]
        self.group_paths = [self._path(group, "states", own) for group in self.groups]
        self.joint_path = self._path(self.seen, "joint", together, config.joint_epochs)
        self._row = {
            t.task.key: (p, n) for p, g in zip(self.group_paths, self.groups, strict=True) for n, t in enumerate(g)
        }

    def _path(self, tasks: Sequence[BuildTask], kind: str, *follows_from: Any) -> Path:
        key = content_hash(kind, [[t.task.key, t.train.key] for t in tasks], *follows_from)
        return work_folder() / f"{key}.safetensors"

    @property
    def paths(self) -> list[Path]:
        """The file of every step."""
        return [*([self.start_path] if self.config.warmup_epochs else []), *self.group_paths, self.joint_path]

    def passes(self, path: Path) -> int:
        """Return how many photos the step of this file encodes, counting repeated passes."""
        if path == self.start_path:
            return self.config.warmup_epochs * sum(len(t.photos) for t in self.experts)
        if path == self.joint_path:
            return self.config.joint_epochs * sum(len(t.photos) for t in self.seen)
        return self.config.epochs * sum(len(t.photos) for t in self.groups[self.group_paths.index(path)])

    def done(self, path: Path) -> bool:
        """Return whether the step of this file is finished and its result is undamaged."""
        try:
            if path not in self.group_paths:
                name = "start" if path == self.start_path else "joint"
                return path.exists() and load_sealed(path)[0][name].shape == (self.layout.size,)
            group = self.groups[self.group_paths.index(path)]
            rows = [TensorRows(path, str(n)) for n in range(len(group))] if path.exists() else []
            for one in rows:
                one.check()
        except (BadFile, KeyError):
            return False
        return bool(rows) and all(
            (one.shape, one.dtype) == ((self.kept, self.layout.size), torch.float32) for one in rows
        )

    def missing(self, resources: Resources) -> list[Step]:
        """Return the unfinished steps, in an order in which they can run."""
        missing = [path for path in self.paths if not self.done(path)]
        start = (self.start_path.stem,) if self.start_path in missing and self.config.warmup_epochs else ()
        return [
            Step(
                path.stem,
                TRAINING_STEP,
                self._name(path),
                path.relative_to(cache_folder()).as_posix(),
                start if path in self.group_paths else (),
                self.passes(path),
                resources,
            )
            for path in missing
        ]

    def perform(self, key: str, advance: Advance, journal: Record) -> None:
        """Train the step of this key, unless it is done."""
        (path,) = (path for path in self.paths if path.stem == key)
        if path == self.start_path:
            self._joint(path, self.experts, self.config.warmup_epochs, "start", advance, journal)
        elif path == self.joint_path:
            self._joint(path, self.seen, self.config.joint_epochs, "joint", advance, journal)
        elif not self.done(path):
            with locked(path):
                if not self.done(path):
                    path.unlink(missing_ok=True)  # damaged
                    group = self.groups[self.group_paths.index(path)]
                    self._own(path, group, self._name(path), advance, journal)

    def _name(self, path: Path) -> str:
        names = {self.start_path: "warm-up", self.joint_path: "joint"}
        return names.get(path) or f"group {self.group_paths.index(path) + 1} of {len(self.groups)}"

    def _own(self, path: Path, group: Sequence[BuildTask], part: str, advance: Advance, journal: Record) -> None:
        names = [t.task.key for t in group]
        shapes = {str(n): (torch.float32, (self.kept, self.layout.size)) for n in range(len(group))}
        draft = TensorDraft(path, shapes, {"kind": "states", "tasks": names})
        checkpoint = Checkpoint(path.with_suffix(".checkpoint"), draft.sync)
        if not draft.resumed:
            checkpoint.drop()  # its states are lost
        try:
            tasks = [t.stored(self.model) for t in group]
            training = OwnTraining(self.model, self.layout, tasks, self.config, self.start_P)
            photos = sum(len(t.photos) for t in group)
            log = _Log(part, names, photos, advance, journal)
            for epoch in _epochs(training, self.config.epochs, checkpoint, log):
                if (row := epoch - (self.config.epochs - self.kept)) >= 0:
                    for n, adapter_P in enumerate(training.adapters_TP.detach().cpu()):
                        draft.put(str(n), row, adapter_P[None])
            draft.finish()
            checkpoint.drop()
        finally:
            draft.close()

    def _joint(
        self, path: Path, tasks: Sequence[BuildTask], epochs: int, name: str, advance: Advance, journal: Record
    ) -> None:
        with locked(path):
            if self.done(path):
                return
            path.unlink(missing_ok=True)  # damaged
            tensors = [t.stored(self.model) for t in tasks]
            training = JointTraining(self.model, self.layout, tensors, self.config, epochs)
            checkpoint = Checkpoint(path.with_suffix(".checkpoint"))
            log = _Log(
                {"start": "warm-up"}.get(name, name), ["all"], sum(len(t.photos) for t in tasks), advance, journal
            )
            for _ in _epochs(training, epochs, checkpoint, log):
                pass
            save_sealed(path, {name: training.mean_P}, {"kind": name})
            checkpoint.drop()

    @cached_property
    def start_P(self) -> Tensor:
        """(P,) the start of every task. The warm-up uses experts only, so it has not seen the training tasks."""
        if not self.config.warmup_epochs:
            return self.layout.initial(self.config.seed)
        return load_sealed(self.start_path)[0]["start"]

    @cached_property
    def joint_P(self) -> Tensor:
        """(P,) trained on experts and training tasks, never on unseen tasks. A mean over epochs."""
        return load_sealed(self.joint_path)[0]["joint"]

    def states(self, task: BuildTask) -> TensorRows:
        """Return the task's last adapters, (M, P) on disk."""
        path, n = self._row[task.task.key]
        return TensorRows(path, str(n))

    def moments(self, task: BuildTask) -> tuple[Tensor, Tensor]:
        """Return mean and variance (P,) over a task's states: mu and sigma^2 of Eq. 5, summed in float64."""
        states = self.states(task)
        mean_P = sum((x_P.double() for x_P in states), torch.zeros(self.layout.size).double()) / len(states)
        square_P = sum(((x_P - mean_P) ** 2 for x_P in states), torch.zeros(self.layout.size).double())
        return mean_P.float(), (square_P / len(states)).float()


@dataclass(frozen=True)
class _Log:
    """Displays the progress of a step's epochs and writes them to the journal."""

    part: str
    tasks: Sequence[str]
    photos: int
    advance: Advance
    journal: Record

    def epoch(self, number: int, of: int, losses: Sequence[float], seconds: float) -> None:
        self.advance(self.photos, f"{self.part}, epoch {number} of {of}")
        rounded = {task: round(loss, 5) for task, loss in zip(self.tasks, losses, strict=True)}
        self.journal("epoch", part=self.part, epoch=number, of=of, loss=rounded, seconds=round(seconds, 3))


def _epochs(training: OwnTraining | JointTraining, count: int, checkpoint: Checkpoint, log: _Log) -> Iterator[int]:
    """Train up to `count` epochs, resuming from a checkpoint if there is one. Yields each epoch's number, from 0."""
    if saved := checkpoint.load():
        training.restore(saved[0])
        log.advance(log.photos * training.epoch, f"{log.part} resumed")
        log.journal("resumed", part=log.part, epoch=training.epoch, of=count)
    while training.epoch < count:
        began = time.monotonic()
        losses = training.advance()
        yield training.epoch - 1
        if checkpoint.due and training.epoch < count:
            checkpoint.save(training.tensors())
        log.epoch(training.epoch, count, losses, time.monotonic() - began)
