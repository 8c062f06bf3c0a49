"""What a pack is made of, changed one thing at a time: `python tests/benchmarks/rebuilt_ablations.py --data DIR`.

training-tasks  the CVAE fitted on 6, 12 or all training tasks; none: no CVAE, mu* is all there is
states          M, how many of the last epochs' adapters are kept: experts and the CVAE follow
expert          a family's pack without and with one related expert of another data set, which is added as
                `sglora pack add` does: trained from the pack's start, the CVAE not fitted again

Each build is another training seed; what does not change is trained once and kept in the user cache, so a run that
was stopped goes on. The recipe's settings are fixed, but for the CVAE's epochs: a CVAE with fewer states has as many
steps as the full one. Differences: paired bootstrap (sglora_cli/bench/bootstrap.py) over tasks, queries, builds
and draws.
Measured on unseen tasks: for describing, not for choosing.

Shapes: P numbers of an adapter, S draws.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rebuilding import Adapters, Built, Experts, World

from sglora_cli.bench.bootstrap import Bootstrap, Interval, bootstrap, is_clear
from sglora_cli.bench.measure import Candidate, Measurer
from sglora_cli.bench.rows import averages
from sglora_cli.pack.pack import UnseenTask
from sglora_cli.plugin.values import Row
from sglora_cli.system.progress import be_quiet

CELLS = (("I2T", 1), ("T2I", 1))
TRAINING_TASKS, STATES = (6, 12), (1, 5, 10)
"""What is tried besides all of them."""
LABELS = {"model-soups": "Model Soups", "top-k": "Top-K weighted", "cvae": "SG-LoRA"}


Setting = tuple[str, Callable[[UnseenTask], Adapters | None]]
"""What the setting is called; the adapters for a task, None where the setting is not about it."""


def by_training_tasks(world: World, seed: int) -> Iterator[Setting]:
    """Nested choices, another one in every build."""
    steps = world.trained(world.mixed, seed)
    teachers = [t for t in steps.tasks if t.role == "training"]
    shuffled = random.Random(seed).sample(range(len(teachers)), len(teachers))
    for count in (len(teachers), *TRAINING_TASKS):
        some = [teachers[t] for t in sorted(shuffled[:count])]  # in the recipe's order: all of them are its own pack
        built = Built.of(world, steps, some, steps.kept, seed)
        yield f"{count} training tasks", built.adapters if count == len(teachers) else _only_cvae(built)


def _only_cvae(built: Built) -> Callable[[UnseenTask], Adapters]:
    """The other methods know nothing of training tasks."""
    return lambda task: {"cvae": built.adapters(task)["cvae"]}


def by_states(world: World, seed: int) -> Iterator[Setting]:
    steps = world.trained(world.mixed, seed)
    teachers = [t for t in steps.tasks if t.role == "training"]
    for count in (steps.kept, *STATES):
        yield f"M = {count}", Built.of(world, steps, teachers, count, seed).adapters


def by_expert(world: World, seed: int) -> Iterator[Setting]:
    without, related = _single(world, world.into, seed), world.related
    assert related is not None
    steps = world.trained([*world.seen[world.into], related], seed)
    experts = [t for t in steps.tasks if t.role == "expert"]
    added = replace(without, experts=Experts(world, steps, [*experts, related], steps.kept))

    def of(built: Built) -> Callable[[UnseenTask], Adapters | None]:
        mine = {(world.into, name) for name in world.concerns}
        return lambda task: built.adapters(task) if (task.dataset, task.name) in mine else None

    for task in world.unseen:
        if task.dataset == world.into and task.name in world.concerns:
            asked = added.prior(task)
            weight = dict(zip(asked.rows, asked.alpha_K.tolist(), strict=True)).get(len(experts), 0.0)
            print(f"seed {seed}, {task.name}: weight of {related.task.key} {weight:.3f}", file=sys.stderr)
    yield "without", of(without)
    yield f"with {related.task.key}", of(added)


def _single(world: World, name: str, seed: int) -> Built:
    """One family's pack. The related expert is trained along, from this family's start, and not part of it."""
    more = [world.related] if name == world.into and world.related else []
    steps = world.trained([*world.seen[name], *more], seed)
    teachers = [t for t in world.seen[name] if t.role == "training"]
    return Built.of(world, steps, teachers, steps.kept, seed)


ABLATIONS: Mapping[str, Callable[[World, int], Iterator[Setting]]] = {
    "training-tasks": by_training_tasks,
    "states": by_states,
    "expert": by_expert,
}


def measured(world: World, settings: Iterator[Setting], seed: int) -> tuple[list[Row], list[str]]:
    """Rows of every method in every setting, as `METHOD@SETTING`; and the settings, the full one first."""
    measurer, rows, names = Measurer(world.model), list[Row](), []
    for name, adapters in settings:
        names.append(name)
        for task in world.unseen:
            found = [
                Candidate(f"{method}@{name}", world.layout, flat_P, sample, seed)
                for method, flat_SP in (adapters(task) or {}).items()
                for sample, flat_P in enumerate(flat_SP)
            ]
            rows += measurer.rows(task, found) if found else []
        print(f"seed {seed}: {name}", file=sys.stderr, flush=True)
    return rows, names


def zero_shot(world: World, tasks: set[tuple[str, str]], seeds: int) -> list[Row]:
    """Of the tasks that were measured; the same in every build."""
    none = [Candidate("zero-shot", world.layout, torch.zeros(world.layout.size))]
    once = [r for t in world.unseen if (t.dataset, t.name) in tasks for r in Measurer(world.model).rows(t, none)]
    return [replace(row, seed=seed) for seed in range(seeds) for row in once]


def show(title: str, rows: Sequence[Row], names: Sequence[str]) -> None:
    """A table: every method in every setting, beside itself in the full one, top-K of its setting, and zero-shot."""
    average, found, full = averages(rows), bootstrap(rows), names[0]
    tasks = len({(row.dataset, row.task) for row in rows})
    print(f"\n**{title}: {tasks} unseen tasks**\n")
    print(f"| method | setting | I2T R@1 | T2I R@1 | R@1 - {full} | R@1 - Top-K | R@1 - zero-shot |\n{'|---' * 7}|")
    print(f"| Zero-shot | | {_cells(average, 'zero-shot')} | | {_gap(found, 'zero-shot', f'top-k@{full}')} | |")
    for method, label in LABELS.items():
        for name in names:
            one = f"{method}@{name}"
            if one in average:
                top = f"top-k@{name}" if f"top-k@{name}" in average else f"top-k@{full}"
                rivals = ("" if name == full else f"{method}@{full}", "" if method == "top-k" else top)
                gaps = [_gap(found, one, rival) for rival in (*rivals, "zero-shot")]
                print(f"| {label} | {name} | {_cells(average, one)} | {' | '.join(gaps)} |")
    sys.stdout.flush()


def _cells(average: Mapping[str, Mapping[tuple[str, int], float]], method: str) -> str:
    return " | ".join(f"{average[method][cell]:.1f}" for cell in CELLS)


def _gap(found: Bootstrap, method: str, rival: str) -> str:
    return " / ".join(_interval(found.difference((method, *cell), rival)) for cell in CELLS) if rival else ""


def _interval(gap: Interval) -> str:
    text = f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]"
    return f"**{text}**" if is_clear(gap) else text


def run(world: World, what: str, seeds: int) -> None:
    """All builds of one ablation, then its tables."""
    builds = [measured(world, ABLATIONS[what](world, seed), seed) for seed in range(seeds)]
    rows, names = [row for found, _ in builds for row in found], builds[0][1]
    rows += zero_shot(world, {(row.dataset, row.task) for row in rows}, seeds)
    show(f"{what}, {seeds} build{'s' * (seeds != 1)}", rows, names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--recipe", type=Path, default=Path("packs/starter.toml"))
    parser.add_argument("--what", nargs="*", choices=list(ABLATIONS), default=list(ABLATIONS))
    parser.add_argument("--builds", type=int, default=1, help="training seeds 0, 1, ...")
    parser.add_argument(
        "--related", default="coco:coco_mini:dog", help="DATASET:FOLDER:TASK, the expert from elsewhere"
    )
    parser.add_argument("--into", default="pets", help="the source whose pack gets it")
    parser.add_argument(
        "--concerns",
        default="chihuahua,japanese chin,pug,saint bernard,yorkshire terrier",
        help="unseen tasks of that source which it is related to",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    be_quiet(True)
    concerns = [one.strip() for one in options.concerns.split(",")]
    world = World.read(options.recipe, options.data, options.related, options.into, concerns)
    for what in options.what:
        run(world, what, options.builds)


if __name__ == "__main__":
    main()
