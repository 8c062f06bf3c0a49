"""Scores a learned generator on training tasks that were left out of its fit, while a pack is built.

`held_out = 3` in a generator's table of a recipe enables this. The generator is fitted three more times, each time
without a third of the training tasks, and then generates adapters for their sentences. These are measured on the
tasks' training photos, without photos that a task shares with experts or other training tasks. Neither the experts,
nor mu*, nor the generator of that fold have seen the remaining photos. Unseen tasks are not used. The joint adapter has
seen all training tasks, so it is replaced by NaN in a fold.

Shapes: T training tasks, P parameters of an adapter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sglora_cli.bench.bootstrap import bootstrap
from sglora_cli.bench.candidates import Candidate
from sglora_cli.bench.measure import Measurer
from sglora_cli.bench.tables import cell_name
from sglora_cli.build.tasks import BuildTask
from sglora_cli.lora.layout import Layout
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.plugin.contracts import Fitted, Generator, Model, adapter_layout
from sglora_cli.plugin.values import AGAINST, ZERO, Material, Row
from sglora_cli.system.progress import progress

KEY = "held_out"
"""The key of the number of folds in a generator's table, and of the scores in the manifest."""


def folds_of(table: Mapping[str, Any], tasks: int) -> int:
    """Return the number of folds, or 0 for none. A fold leaves out at least one task, but not all."""
    folds = min(int(table.get(KEY, 0)), tasks)
    return folds if folds > 1 else 0


def fold_rows(
    model: Model,
    generator: Generator,
    table: Mapping[str, Any],
    material: Material,
    tasks: Sequence[BuildTask],
    experts: Sequence[BuildTask],
    fold: int,
) -> list[Row]:
    """Fit a generator without one fold of the training tasks and measure its adapters on these tasks.

    There is one draw per task.
    tasks: those of the material, in its order.  experts: the other seen tasks. Photos that a task shares with one of
    them or with another of `tasks` are not used.
    """
    folds, own = folds_of(table, len(tasks)), own_photos(tasks, experts)
    material.note(f"{generator.name}: fitting without part {fold + 1} of {folds} of the training tasks")
    fitted, _ = generator.fit(_without(material, fold, folds), table)
    rows: list[Row] = []
    for t in progress(list(range(fold, len(tasks), folds)), "tasks left out"):
        rows += _measured(model, material, generator.name, fitted, t, _as_unseen(model, tasks[t], own[t]))
    return rows


def scores(
    rows: Sequence[Row], name: str, folds: int, tasks: Sequence[BuildTask], experts: Sequence[BuildTask]
) -> dict[str, Any]:
    """Return the scores of all folds for the manifest, under KEY, or {} without rows.

    Scores are in percent, averaged over the tasks, for the generator, zero-shot and mu*. "gain" is the generator minus
    mu*, with its 95 % interval over tasks and queries.
    """
    if not rows:
        return {}
    intervals = bootstrap(rows)
    cells = [(direction, k) for method, direction, k in intervals.measured if method == ZERO and k == 1]
    return {
        KEY: {
            "folds": folds,
            "tasks": len(tasks),
            "photos": sum(map(len, own_photos(tasks, experts))),
            "scores": {
                method: {cell_name(cell): round(intervals.measured[method, *cell], 3) for cell in cells}
                for method in (ZERO, AGAINST, name)
            },
            "gain": {
                cell_name(cell): [round(end, 3) for end in intervals.difference((name, *cell), AGAINST)]
                for cell in cells
            },
        }
    }


def _without(material: Material, fold: int, folds: int) -> Material:
    """Return the material without every folds-th task.

    Neighbouring tasks have the same source, so each fold leaves out some of each source.
    """
    seen = [t for t in range(len(material.tasks)) if t % folds != fold]
    left_out = [name for t, name in enumerate(material.tasks) if t % folds == fold]
    return replace(
        material,
        pool=material.pool.without(left_out),
        tasks=[material.tasks[t] for t in seen],
        states=lambda t: material.states(seen[t]),
        rows=lambda t, rows: material.rows(seen[t], rows),
        priors=[material.priors[t] for t in seen],
        joint_P=torch.full_like(material.joint_P, torch.nan),
        recall=lambda t, adapters_SP: material.recall(seen[t], adapters_SP),
        note=lambda text: None,
        checkpoint=None,
    )


def _measured(model: Model, material: Material, name: str, fitted: Fitted, t: int, task: UnseenTask) -> Iterator[Row]:
    prior, layout = material.priors[t], material.experts.layout
    (flat_P,) = fitted.generate(prior, 1, 0, 1.0)
    candidates = [Candidate(ZERO, layout, torch.zeros(layout.size)), Candidate(AGAINST, layout, prior.mean_P)]
    candidates.append(Candidate(name, adapter_layout(fitted, layout), flat_P))
    yield from Measurer(model).rows(task, candidates)


def own_photos(tasks: Sequence[BuildTask], experts: Sequence[BuildTask]) -> list[list[int]]:
    """Return for each task the rows of training photos that no other task and no expert learns from.

    A task with fewer than two such photos keeps all its photos, so its result is not held out.
    """
    owners = Counter(photo for t in (*tasks, *experts) for photo in set(t.train.hashes))
    own = [[n for n, photo in enumerate(t.train.hashes) if owners[photo] == 1] for t in tasks]
    return [rows if len(rows) > 1 else list(range(len(t.photos))) for t, rows in zip(tasks, own, strict=True)]


def _as_unseen(model: Model, task: BuildTask, photos: Sequence[int]) -> UnseenTask:
    """Convert a training task to an unseen one that is measured on some of its training photos."""
    content, one = task.train.tensors(model).only(photos), task.task
    return UnseenTask(one.dataset, one.name, one.description, content, (), None)


def recall_on(
    model: Model, layout: Layout, tasks: Sequence[BuildTask], experts: Sequence[BuildTask] = ()
) -> Callable[[int, Tensor], Tensor]:
    """Return the function Material.recall of a fit.

    It gives the mean over directions and k, as in reports, for each adapter.
    """
    own = own_photos(tasks, experts)

    def recall(t: int, adapters_SP: Tensor) -> Tensor:
        candidates = [Candidate("", layout, x_P, sample) for sample, x_P in enumerate(adapters_SP)]
        recalls: list[list[float]] = [[] for _ in candidates]
        for row in Measurer(model).rows(_as_unseen(model, tasks[t], own[t]), candidates):
            recalls[row.sample].append(row.value)
        return torch.tensor([sum(values) / len(values) for values in recalls])

    return recall
