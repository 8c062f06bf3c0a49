"""Every task of a recipe unseen once: `python tests/benchmarks/every_task.py --data DIR --seeds 2`.

The tasks of all roles are dealt into folds, source by source. For each fold the others are seen: experts stay experts,
all others are training tasks. A task that was left out is measured on all its photos, which nothing has seen. So all
tasks are measured and not only the recipe's few unseen ones, and intervals are narrower; there is no Oracle, for no
photo is left to train one. Tasks whose role is "training" had a say in the recipe's settings: they are shown apart.

What is trained is kept in the user cache. A run that was stopped goes on.

Shapes: P numbers of an adapter, S seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from over_seeds import AGAINST, CELLS, both
from rebuilding import Built, World
from torch import Tensor

from sglora_calibrated import point
from sglora_cli.bench.bootstrap import bootstrap
from sglora_cli.bench.measure import Candidate, Measurer
from sglora_cli.bench.rows import averages
from sglora_cli.build.pipeline import build_tasks, compute_features
from sglora_cli.build.steps import BuildTask, Steps
from sglora_cli.pack.pack import UnseenTask
from sglora_cli.plugin.values import Row
from sglora_cli.system.progress import Journal, be_quiet


def all_tasks(world: World, data: Path) -> tuple[list[BuildTask], dict[str, str]]:
    """Every task with all its photos, in its role in the recipe but for unseen ones, which become training tasks; and
    the roles as they were, by key."""
    plan, was = [], dict[str, str]()
    for source in world.recipe.sources:
        was |= {f"{source.name}/{name}": role for role, names in source.roles.items() for name in names}
        roles = {**source.roles, "training": source.roles["training"] + source.roles["unseen"], "unseen": ()}
        plan.append(replace(source, roles=roles, whole=True).tasks(world.host, data, world.recipe.template))
    tasks = build_tasks(world.model, plan, world.recipe.prompts, world.recipe.train.mirror > 0)
    compute_features(world.model, tasks, Journal(None))
    return tasks, was


class Fold:
    """One fold built from some seeds."""

    def __init__(self, world: World, tasks: Sequence[BuildTask], fold: int, folds: int, seeds: int) -> None:
        self.world = world
        self.out = [t for n, t in enumerate(tasks) if n % folds == fold]
        seen = [t for n, t in enumerate(tasks) if n % folds != fold]
        teachers = [t for t in seen if t.role == "training"]
        self.builds: list[tuple[Steps, Built]] = []
        for seed in range(seeds):
            steps = Steps(world.model, world.layout, seen, replace(world.recipe.train, seed=seed))
            steps.train(lambda passes, part: None, Journal(None))
            self.builds.append((steps, Built.of(world, steps, teachers, steps.kept, seed)))

    def rows(self) -> list[Row]:
        measurer, found = Measurer(self.world.model), list[Row]()
        for t in self.out:
            content = replace(t.train.stored(self.world.model).to(torch.device("cpu")), mirror=None)
            task = UnseenTask(t.task.dataset, t.task.name, t.task.description, content, (), None)
            found += measurer.rows(task, self._candidates(task))
        return found

    def _candidates(self, task: UnseenTask) -> list[Candidate]:
        layout = self.world.layout
        found = []
        for seed, (steps, built) in enumerate(self.builds):
            joint_P, own_P = steps.joint_P, built.prior(task).mean_P - built.experts.means().mean(dim=0)
            named: Mapping[str, Tensor] = {
                "zero-shot": torch.zeros(1, layout.size),
                **built.adapters(task),
                "warm-up": steps.start_P[None],
                "joint": joint_P[None],
                "joint, half": point(layout, joint_P, own_P, 0.5, 0.0)[None],
                "joint + (mu* - soups)": point(layout, joint_P, own_P, 1.0, 1.0)[None],
            }
            for name, flat_SP in named.items():
                found += [Candidate(name, layout, flat_P, sample, seed) for sample, flat_P in enumerate(flat_SP)]
        return found


def table(title: str, rows: Sequence[Row]) -> None:
    average, found = averages(rows), bootstrap(rows)
    tasks = len({(row.dataset, row.task) for row in rows})
    heads = ["method", "I2T R@1", "T2I R@1", *(f"R@1 - {one}" for one in AGAINST)]
    print(f"\n**{title}: {tasks} tasks**\n\n| {' | '.join(heads)} |")
    print("|---" * (3 + len(AGAINST)) + "|")
    for method, cells in average.items():
        gaps = [both(found, method, one) if one != method else "" for one in AGAINST]
        print(f"| {method} | {' | '.join([*(f'{cells[cell]:.1f}' for cell in CELLS), *gaps])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--recipe", type=Path, default=Path("packs/starter.toml"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    be_quiet(True)
    world = World.read(options.recipe, options.data)
    tasks, was = all_tasks(world, options.data)
    rows: list[Row] = []
    for fold in range(options.folds):
        rows += Fold(world, tasks, fold, options.folds, options.seeds).rows()
        print(f"fold {fold + 1} of {options.folds}", file=sys.stderr, flush=True)
    table(f"every task unseen once, {options.seeds} builds", rows)
    untouched = [row for row in rows if was[f"{row.dataset}/{row.task}"] != "training"]
    table("of these, tasks that had no say in the settings", untouched)
    for family in world.seen:
        table(family, [row for row in rows if row.dataset == family])


if __name__ == "__main__":
    main()
