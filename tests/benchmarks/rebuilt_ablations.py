"""What a pack is made of, changed one thing at a time: `python tests/benchmarks/rebuilt_ablations.py --data DIR`.

training-tasks  the CVAE fitted on 6, 12 or all training tasks; none: no CVAE, mu* is all there is
states          M, how many of the last epochs' adapters are kept: experts and the CVAE follow
sources         a pack a family against the mixed one, each family's unseen tasks
expert          a family's pack without and with one related expert of another data set, which is added as
                `sglora pack add` does: trained from the pack's start, the CVAE not fitted again

Each build is another training seed; what does not change is trained once and kept in the user cache, so a run that
was stopped goes on. The recipe's settings are fixed, but for the CVAE's epochs: a CVAE with fewer states has as many
steps as the full one. Differences: paired bootstrap of sglora_cli/statistics.py over tasks, queries, builds and draws.
Measured on unseen tasks: for describing, not for choosing.

Shapes: E experts, P numbers of an adapter, S draws, D embedding.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.adapters import Layout
from sglora_cli.building import build_tasks, compute_features
from sglora_cli.configs import RuntimeConfig, from_mapping
from sglora_cli.contracts import Fitted, Material, Model, Row
from sglora_cli.host import Host
from sglora_cli.journal import Journal
from sglora_cli.measuring import Candidate, Measurer
from sglora_cli.packs import UnseenTask
from sglora_cli.progressing import be_quiet
from sglora_cli.recipes import Recipe, Source, read
from sglora_cli.rows import averages
from sglora_cli.semantics import Prior, prior
from sglora_cli.statistics import Bootstrap, Interval, bootstrap, is_clear
from sglora_cli.steps import BuildTask, Steps

CELLS = (("I2T", 1), ("T2I", 1))
TRAINING_TASKS, STATES = (6, 12), (1, 5, 10)
"""What is tried besides all of them."""
DRAWS = 5
LABELS = {"model-soups": "Model Soups", "top-k": "Top-K weighted", "cvae": "SG-LoRA"}
Adapters = Mapping[str, Tensor]
"""Method -> adapters (S, P) for one task."""


class Experts:
    """The expert repository in memory (Eq. 5), of each task's last M states; with the embeddings of their sentences."""

    def __init__(self, world: World, steps: Steps, tasks: Sequence[BuildTask], states: int) -> None:
        self.names, self.layout = [task.task.key for task in tasks], world.layout
        mean, variance = zip(*(_moments(steps, task, states) for task in tasks), strict=True)
        self.mean_EP, self.variance_EP = torch.stack(mean), torch.stack(variance)
        self.index_ED = world.model.encode_text([task.task.description for task in tasks]).float()

    def means(self, rows: Sequence[int] | None = None) -> Tensor:
        return self.mean_EP if rows is None else self.mean_EP[list(rows)]

    def variances(self, rows: Sequence[int] | None = None) -> Tensor:
        return self.variance_EP if rows is None else self.variance_EP[list(rows)]


def _moments(steps: Steps, task: BuildTask, states: int) -> tuple[Tensor, Tensor]:
    state_MP = _tail(steps, task, states).double()
    return state_MP.mean(dim=0).float(), state_MP.var(dim=0, correction=0).float()


def _tail(steps: Steps, task: BuildTask, states: int) -> Tensor:
    """(M, P): the last ones."""
    return steps.states(task)[list(range(steps.kept - states, steps.kept))]


@dataclass(frozen=True)
class World:
    """What all builds share."""

    host: Host
    recipe: Recipe
    model: Model
    layout: Layout
    seen: Mapping[str, Sequence[BuildTask]]
    """Source -> its experts and training tasks."""
    unseen: Sequence[UnseenTask]
    related: BuildTask | None
    """The expert from elsewhere,"""
    into: str
    """the source whose pack gets it,"""
    concerns: Sequence[str]
    """and the unseen tasks it is related to."""

    @classmethod
    def read(cls, options: argparse.Namespace) -> World:
        host, recipe = Host.load(), read(options.recipe)
        model = host.backbones[recipe.backbone].load(RuntimeConfig())
        layout = Layout(tuple(model.sites), recipe.lora.rank, recipe.lora.alpha)
        plan = [source.tasks(host, options.data, recipe.template) for source in recipe.sources]
        tasks = build_tasks(model, plan, recipe.prompts)
        dataset, path, name = options.related.split(":")
        source = Source(dataset, dataset, path, {"training": (name,)})
        extra = build_tasks(model, [source.tasks(host, options.data, recipe.template)])
        compute_features(model, [*tasks, *extra], Journal(None))
        seen: dict[str, list[BuildTask]] = {}
        for task in tasks:
            if task.role != "unseen":
                # Another set of features for the tests of seen tasks is never looked at.
                seen.setdefault(task.task.dataset, []).append(task)
        unseen = [_unseen(model, task) for task in tasks if task.test]
        names = [one.strip() for one in options.concerns.split(",")]
        return cls(host, recipe, model, layout, seen, unseen, extra[0], options.into, names)

    @property
    def mixed(self) -> list[BuildTask]:
        return [task for tasks in self.seen.values() for task in tasks]

    def trained(self, tasks: Sequence[BuildTask], seed: int) -> Steps:
        """Warm-up on the experts among the tasks, and every task's states."""
        config = replace(self.recipe.train, seed=seed, joint_epochs=1)  # nobody asks for the joint adapter
        steps = Steps(self.model, self.layout, tasks, config)
        steps.train(lambda passes, part: None, Journal(None))
        return steps


def _unseen(model: Model, task: BuildTask) -> UnseenTask:
    assert task.test is not None
    content, one = task.test.stored(model).to(torch.device("cpu")), task.task
    content = replace(content, text_CD=content.text_CD.half().float())  # as a pack keeps them
    return UnseenTask(one.dataset, one.name, one.description, content, (), None)


@dataclass(frozen=True)
class Built:
    """One pack, in memory: experts, and a CVAE where there were training tasks."""

    world: World
    experts: Experts
    cvae: Fitted | None

    @classmethod
    def of(cls, world: World, steps: Steps, teachers: Sequence[BuildTask], states: int, seed: int) -> Built:
        experts = Experts(world, steps, [t for t in steps.tasks if t.role == "expert"], states)
        return cls(world, experts, _cvae(world, steps, experts, teachers, states, seed) if teachers else None)

    def prior(self, task: UnseenTask) -> Prior:
        embedding_D = self.world.model.encode_text([task.description])[0]
        return prior(embedding_D, self.experts.index_ED, self.experts, self.world.recipe.prior)

    def adapters(self, task: UnseenTask) -> Adapters:
        asked = self.prior(task)
        found = {"model-soups": self.experts.means().mean(dim=0)[None], "top-k": asked.mean_P[None]}
        return found if self.cvae is None else {**found, "cvae": self.cvae.generate(asked, DRAWS, 0, 1.0)}


def _cvae(
    world: World, steps: Steps, experts: Experts, teachers: Sequence[BuildTask], states: int, seed: int
) -> Fitted:
    generator, table = world.host.generators["cvae"], world.recipe.generators["cvae"]
    config = from_mapping(generator.config, table, "generators.cvae")

    def steps_of(count: int) -> int:
        return -(-count // config.batch)

    full = sum(t.role == "training" for t in steps.tasks) * steps.kept
    epochs = round(config.epochs * steps_of(full) / steps_of(len(teachers) * states))
    state_TMP = [_tail(steps, task, states) for task in teachers]
    embeddings = world.model.encode_text([task.task.description for task in teachers])
    material = Material(
        experts=experts,
        tasks=[task.task.key for task in teachers],
        states=lambda t: state_TMP[t],
        rows=lambda t, rows: state_TMP[t][list(rows)],
        states_of_task=states,
        priors=[prior(d, experts.index_ED, experts, world.recipe.prior) for d in embeddings],
        joint_P=torch.zeros(experts.layout.size),
        seed=seed,
        note=lambda text: None,
    )
    return generator.fit(material, {**table, "epochs": epochs})[0]


Setting = tuple[str, Callable[[UnseenTask], Adapters | None]]
"""What the setting is called; the adapters for a task, None where the setting is not about it."""


def by_training_tasks(world: World, seed: int) -> Iterator[Setting]:
    """Nested choices, another one in every build."""
    steps = world.trained(world.mixed, seed)
    teachers = [t for t in steps.tasks if t.role == "training"]
    shuffled = random.Random(seed).sample(range(len(teachers)), len(teachers))
    for count in (len(teachers), *TRAINING_TASKS):
        some = [teachers[t] for t in sorted(shuffled[:count])]  # in the recipe's order: all of them are its own pack
        yield f"{count} training tasks", Built.of(world, steps, some, steps.kept, seed).adapters


def by_states(world: World, seed: int) -> Iterator[Setting]:
    steps = world.trained(world.mixed, seed)
    teachers = [t for t in steps.tasks if t.role == "training"]
    for count in (steps.kept, *STATES):
        yield f"M = {count}", Built.of(world, steps, teachers, count, seed).adapters


def by_sources(world: World, seed: int) -> Iterator[Setting]:
    steps = world.trained(world.mixed, seed)
    teachers = [t for t in steps.tasks if t.role == "training"]
    yield "mixed", Built.of(world, steps, teachers, steps.kept, seed).adapters
    single = {name: _single(world, name, seed) for name in world.seen}
    yield "own family alone", lambda task: single[task.dataset].adapters(task)


def by_expert(world: World, seed: int) -> Iterator[Setting]:
    assert world.related is not None
    without, related = _single(world, world.into, seed), world.related
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
    more = [world.related] if world.related and name == world.into else []
    steps = world.trained([*world.seen[name], *more], seed)
    teachers = [t for t in world.seen[name] if t.role == "training"]
    return Built.of(world, steps, teachers, steps.kept, seed)


ABLATIONS: Mapping[str, Callable[[World, int], Iterator[Setting]]] = {
    "training-tasks": by_training_tasks,
    "states": by_states,
    "sources": by_sources,
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
                rivals = ("" if name == full else f"{method}@{full}", "" if method == "top-k" else f"top-k@{name}")
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
    """All builds of one ablation, a table after each of them."""
    rows: list[Row] = []
    for seed in range(seeds):
        found, names = measured(world, ABLATIONS[what](world, seed), seed)
        rows += found
        if seed + 1 < seeds:
            continue
        rows += zero_shot(world, {(row.dataset, row.task) for row in rows}, seeds)
        show(f"{what}, {seeds} build{'s' * (seeds != 1)}", rows, names)
        families = list(dict.fromkeys(row.dataset for row in rows))
        if what == "sources":
            for family in families:
                show(f"{what}, {family}", [row for row in rows if row.dataset == family], names)


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
    world = World.read(options)
    for what in options.what:
        run(world, what, options.builds)


if __name__ == "__main__":
    main()
