"""Packs in memory, built with parts of a recipe changed: what rebuilt_ablations.py measures.

What does not change is trained once and kept in the user cache (steps.py).
Shapes: E experts, M states of a task, P numbers, S draws, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.build.pipeline import build_tasks, compute_features
from sglora_cli.build.steps import BuildTask, Steps
from sglora_cli.config import RuntimeConfig, from_mapping
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import Prior, prior
from sglora_cli.pack.pack import UnseenTask
from sglora_cli.pack.recipe import Recipe, Source
from sglora_cli.pack.recipe_parser import read
from sglora_cli.plugin.contracts import Fitted, Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import Material
from sglora_cli.system.progress import Journal

DRAWS = 5
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
    state_MP = last_states(steps, task, states).double()
    return state_MP.mean(dim=0).float(), state_MP.var(dim=0, correction=0).float()


def last_states(steps: Steps, task: BuildTask, states: int) -> Tensor:
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
    """The expert from elsewhere, if there is one,"""
    into: str
    """the source whose pack gets it,"""
    concerns: Sequence[str]
    """and the unseen tasks it is related to."""

    @classmethod
    def read(
        cls, recipe_path: Path, data: Path, related: str = "", into: str = "", concerns: Sequence[str] = ()
    ) -> World:
        """`related`: DATASET:FOLDER:TASK."""
        host, recipe = Host.load(), read(recipe_path)
        model = host.backbones[recipe.backbone].load(RuntimeConfig())
        layout = Layout(tuple(model.sites), recipe.lora.rank, recipe.lora.alpha)
        plan = [source.tasks(host, data, recipe.template) for source in recipe.sources]
        mirror = recipe.train.mirror > 0
        tasks = build_tasks(model, plan, recipe.prompts, mirror)
        extra: list[BuildTask] = []
        if related:
            dataset, path, name = related.split(":")
            source = Source(dataset, dataset, path, {"training": (name,)})
            extra = build_tasks(model, [source.tasks(host, data, recipe.template)], (), mirror)
        compute_features(model, [*tasks, *extra], Journal(None))
        seen: dict[str, list[BuildTask]] = {}
        for task in tasks:
            if task.role != "unseen":
                seen.setdefault(task.task.dataset, []).append(task)
        unseen = [_unseen(model, task) for task in tasks if task.test]
        return cls(host, recipe, model, layout, seen, unseen, extra[0] if extra else None, into, concerns)

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
        return prior(
            embedding_D, self.experts.index_ED, self.experts, self.world.recipe.prior.k, self.world.recipe.prior.tau
        )

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

    full = sum(t.role == "training" and t is not world.related for t in steps.tasks) * steps.kept
    epochs = round(config.epochs * steps_of(full) / steps_of(len(teachers) * states))
    state_TMP = [last_states(steps, task, states) for task in teachers]
    embeddings = world.model.encode_text([task.task.description for task in teachers])
    material = Material(
        experts=experts,
        tasks=[task.task.key for task in teachers],
        states=lambda t: state_TMP[t],
        rows=lambda t, rows: state_TMP[t][list(rows)],
        states_of_task=states,
        priors=[prior(d, experts.index_ED, experts, world.recipe.prior.k, world.recipe.prior.tau) for d in embeddings],
        joint_P=torch.zeros(experts.layout.size),
        start_P=None,
        recall=lambda t, adapters_SP: torch.zeros(len(adapters_SP)),
        seed=seed,
        note=lambda text: None,
    )
    return generator.fit(material, {**table, "epochs": epochs})[0]
