"""Fits the generators of a build, in steps that survive a kill.

The result of a fit is a file in the folder `work` of the user cache, under the hash of its inputs. So are the rows of
each fold of a generator with `held_out`.

Shapes: E experts, P parameters of an adapter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from sglora_cli.build.bank import Bank
from sglora_cli.build.held_out import fold_rows, folds_of, recall_on, scores
from sglora_cli.build.pool import Pool
from sglora_cli.build.pool_tasks import PoolTask, phrase_key
from sglora_cli.build.steps import Steps, work_folder
from sglora_cli.build.tasks import BuildTask
from sglora_cli.errors import BadFile
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.tensors import Checkpoint, load_sealed, save_sealed
from sglora_cli.files.text import read_sealed, write_sealed
from sglora_cli.lora.prior import Index, Prior, prior
from sglora_cli.pack.content.shards import ExpertShards
from sglora_cli.pack.recipe import Recipe
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import queries
from sglora_cli.plugin.values import TRAINING, Material, Resources, Row, Step
from sglora_cli.system.locks import locked
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import Record

FIT, FOLD = "generator", "fold"
"""The kinds of the steps of this module."""


class Fits:
    """The files of the fits of a build. No experts are needed to know them."""

    def __init__(self, recipe: Recipe, steps: Steps, pool_tasks: Sequence[PoolTask]) -> None:
        self.recipe, self.tasks = recipe, [t for t in steps.tasks if t.role == TRAINING]
        inputs = [str(path.stem) for path in steps.paths]
        described, phrases = [t.task.description for t in steps.seen], phrase_key(pool_tasks)
        shared = [asdict(recipe.prior), inputs, described, *phrases]
        key_of = {name: content_hash("generator 2", name, table, *shared) for name, table in recipe.generators.items()}
        self._paths = {name: work_folder() / f"{key}.safetensors" for name, key in key_of.items()}

    def path(self, name: str) -> Path:
        """Return the file of a generator's fit."""
        return self._paths[name]

    def folds(self, name: str) -> list[Path]:
        """Return the files of a generator's folds, none without `held_out`."""
        count, path = folds_of(self.recipe.generators[name], len(self.tasks)), self.path(name)
        return [path.with_name(f"{path.stem}-fold-{fold + 1}-of-{count}.json") for fold in range(count)]

    def missing(self, resources: Resources) -> list[Step]:
        """Return the unfinished steps, in an order in which they can run."""
        steps = []
        for name in self.recipe.generators:
            if stored_fit(self.path(name)) is None:
                folds = [path for path in self.folds(name) if stored_rows(path) is None]
                steps += [_step(FOLD, name, path, (), resources) for path in folds]
                steps.append(_step(FIT, name, self.path(name), tuple(path.stem for path in folds), resources))
        return steps

    def drop(self) -> None:
        """Remove the files of all fits and folds."""
        for name in self.recipe.generators:
            for path in (self.path(name), *self.folds(name)):
                with locked(path):
                    path.unlink(missing_ok=True)


def _step(kind: str, name: str, path: Path, after: tuple[str, ...], resources: Resources) -> Step:
    return Step(path.stem, kind, name, path.relative_to(cache_folder()).as_posix(), after, 1.0, resources)


class Fitting:
    """What the generators of a build learn from, and their fits."""

    def __init__(
        self,
        host: Host,
        recipe: Recipe,
        steps: Steps,
        pool_tasks: Sequence[PoolTask],
        bank: Bank,
        experts: ExpertShards,
        note: Callable[[str], None],
    ) -> None:
        self.host, self.recipe, self.model, self.steps = host, recipe, steps.model, steps
        self.pool_tasks, self.bank, self.experts, self.note = pool_tasks, bank, experts, note
        self.fits = Fits(recipe, steps, pool_tasks)

    def perform(self, step: Step, journal: Record) -> None:
        """Do one step of `Fits.missing`, unless its file exists."""
        path = cache_folder() / step.path
        with locked(path):
            if step.kind == FOLD:
                if stored_rows(path) is None:
                    self._measure(step.name, path)
            elif stored_fit(path) is None:
                began = time.monotonic()
                self._fit(step.name, path)
                journal("generator", name=step.name, seconds=round(time.monotonic() - began, 3))

    def _fit(self, name: str, path: Path) -> None:
        generator, table = self.host.generators[name], self.recipe.generators[name]
        checkpoint = Checkpoint(path.with_suffix(".checkpoint"))
        fitted, facts = generator.fit(self._material(checkpoint), table)
        rows = [row for fold in self.fits.folds(name) for row in stored_rows(fold) or []]
        folds = len(self.fits.folds(name))
        health = {**facts, **scores(rows, name, folds, self.fits.tasks, self.steps.experts)}
        save_sealed(path, fitted.tensors(), {"health": health})
        checkpoint.drop()

    def _measure(self, name: str, path: Path) -> None:
        generator, table, tasks = self.host.generators[name], self.recipe.generators[name], self.fits.tasks
        fold = self.fits.folds(name).index(path)
        rows = fold_rows(self.model, generator, table, self._material(None), tasks, self.steps.experts, fold)
        write_sealed(path, [list(asdict(row).values()) for row in rows])

    @cached_property
    def _index(self) -> Index:
        return Index(self.experts)

    @cached_property
    def _priors(self) -> list[Prior]:
        k, tau, space = self.recipe.prior.k, self.recipe.prior.tau, self.recipe.prior.space
        asked = queries(self.model, [t.task.description for t in self.fits.tasks])
        return [prior(one.embedding_D, self._index.similarity(one, space, k), self.experts, k, tau) for one in asked]

    @cached_property
    def _pool(self) -> Pool:
        recipe, row_of = self.recipe, {key: row for row, key in enumerate(self.experts.names)}

        def prior_of(t: PoolTask) -> Prior:
            (one,) = queries(self.model, [t.description])
            own = [row_of[t.name]] if t.name in row_of else []
            # K + 1 similarities, so that the K largest besides its own are exact.
            similarity_E = self._index.similarity(one, recipe.prior.space, min(recipe.prior.k + 1, len(row_of)))
            k = min(recipe.prior.k, len(row_of) - len(own))
            return prior(one.embedding_D, similarity_E, self.experts, k, recipe.prior.tau, own)

        return Pool(self.bank, self.pool_tasks, recipe.train, prior_of, recipe.phrases.least_photos)

    def _material(self, checkpoint: Checkpoint | None) -> Material:
        tasks: Sequence[BuildTask] = self.fits.tasks
        states = [self.steps.states(t) for t in tasks]
        return Material(
            experts=self.experts,
            tasks=[t.task.key for t in tasks],
            states=lambda t: states[t].to("cpu"),
            rows=lambda t, rows: states[t][rows],
            states_of_task=self.steps.kept,
            priors=self._priors,
            joint_P=self.steps.joint_P,
            pool=self._pool,
            start_P=self.steps.start_P if self.recipe.train.warmup_epochs else None,
            recall=recall_on(self.model, self.steps.layout, tasks, self.steps.experts),
            seed=self.recipe.train.seed,
            note=self.note,
            checkpoint=checkpoint,
            device=str(self.model.device),
        )


def stored_fit(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return a stored generator that was already fitted, or None if there is none or its file is damaged."""
    try:
        return load_sealed(path)
    except BadFile:
        path.unlink(missing_ok=True)
        return None


def stored_rows(path: Path) -> list[Row] | None:
    """Return the stored rows of a fold, or None if there are none or their file is damaged."""
    try:
        return [Row(*values) for values in _listed(read_sealed(path))] if path.exists() else None
    except (BadFile, TypeError):
        return None


def _listed(content: Any) -> Iterable[list[Any]]:
    if not isinstance(content, list):
        raise TypeError("no rows")
    return content
