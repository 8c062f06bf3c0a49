"""Scores of a learned generator on training tasks it was not fitted on: leave-tasks-out, while a pack is built.

`held_out = 3` in a generator's table of a recipe switches it on. The generator is fitted three more times, each time
without a third of the training tasks, and then generates adapters for their sentences. These are measured on the
tasks' training photos, which neither experts nor mu* nor the generator of that fold have seen. Unseen tasks are not
used. The joint adapter has seen all training tasks, so a fold gets NaN in its place.

Shapes: T training tasks, P numbers of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sglora_cli.bench.bootstrap import bootstrap
from sglora_cli.bench.measure import Candidate, Measurer
from sglora_cli.bench.tables import cell_name
from sglora_cli.build.steps import BuildTask
from sglora_cli.lora.layout import Layout
from sglora_cli.pack.pack import UnseenTask
from sglora_cli.plugin.contracts import Fitted, Generator, Model
from sglora_cli.plugin.values import AGAINST, ZERO, Material, Row
from sglora_cli.system.progress import progress

KEY = "held_out"
"""The key of the number of folds in a generator's table, and of the scores in the manifest."""


def folds_of(table: Mapping[str, Any], tasks: int) -> int:
    """The number of folds, 0 for none. A fold leaves out at least one task, and not all."""
    folds = min(int(table.get(KEY, 0)), tasks)
    return folds if folds > 1 else 0


def scored(
    model: Model, generator: Generator, table: Mapping[str, Any], material: Material, tasks: Sequence[BuildTask]
) -> dict[str, Any]:
    """The scores for the manifest, under KEY; {} if none are wanted.

    Percent, averaged over the tasks, beside zero-shot and mu*; "gain": the generator minus mu*, with its 95 % interval
    over tasks and queries. One draw a task. `tasks`: those of the material, in its order.
    """
    folds = folds_of(table, len(tasks))
    if not folds:
        return {}
    rows: list[Row] = []
    for fold in range(folds):
        material.note(f"{generator.name}: fitted without part {fold + 1} of {folds} of the training tasks")
        fitted, _ = generator.fit(_without(material, fold, folds), table)
        for t in progress(list(range(fold, len(tasks), folds)), "tasks left out"):
            rows += _measured(model, material, generator.name, fitted, t, tasks[t])
    intervals = bootstrap(rows)
    cells = [(direction, k) for method, direction, k in intervals.measured if method == ZERO and k == 1]
    return {
        KEY: {
            "folds": folds,
            "tasks": len(tasks),
            "photos": sum(len(task.photos) for task in tasks),
            "scores": {
                method: {cell_name(cell): round(intervals.measured[method, *cell], 3) for cell in cells}
                for method in (ZERO, AGAINST, generator.name)
            },
            "gain": {
                cell_name(cell): [round(end, 3) for end in intervals.difference((generator.name, *cell), AGAINST)]
                for cell in cells
            },
        }
    }


def _without(material: Material, fold: int, folds: int) -> Material:
    """The material without every folds-th task. Neighbours are of one source: a fold lacks some of each."""
    seen = [t for t in range(len(material.tasks)) if t % folds != fold]
    return replace(
        material,
        tasks=[material.tasks[t] for t in seen],
        states=lambda t: material.states(seen[t]),
        rows=lambda t, rows: material.rows(seen[t], rows),
        priors=[material.priors[t] for t in seen],
        joint_P=torch.full_like(material.joint_P, torch.nan),
        recall=lambda t, adapters_SP: material.recall(seen[t], adapters_SP),
        note=lambda text: None,
        checkpoint=None,
    )


def _measured(model: Model, material: Material, name: str, fitted: Fitted, t: int, task: BuildTask) -> Iterator[Row]:
    prior, layout = material.priors[t], material.experts.layout
    (flat_P,) = fitted.generate(prior, 1, 0, 1.0)
    adapters = {ZERO: torch.zeros(layout.size), AGAINST: prior.mean_P, name: flat_P}
    candidates = [Candidate(method, layout, x_P) for method, x_P in adapters.items()]
    yield from Measurer(model).rows(_as_unseen(model, task), candidates)


def _as_unseen(model: Model, task: BuildTask) -> UnseenTask:
    """A training task in the form of an unseen one, to be measured on its training photos."""
    content, one = task.train.stored(model).to(torch.device("cpu")), task.task
    return UnseenTask(one.dataset, one.name, one.description, content, (), None)


def recall_on(model: Model, layout: Layout, tasks: Sequence[BuildTask]) -> Callable[[int, Tensor], Tensor]:
    """The function Material.recall of a fit: the mean over directions and k, as in reports, of every adapter."""

    def recall(t: int, adapters_SP: Tensor) -> Tensor:
        candidates = [Candidate("", layout, x_P, sample) for sample, x_P in enumerate(adapters_SP)]
        recalls: list[list[float]] = [[] for _ in candidates]
        for row in Measurer(model).rows(_as_unseen(model, tasks[t]), candidates):
            recalls[row.sample].append(row.value)
        return torch.tensor([sum(values) / len(values) for values in recalls])

    return recall
