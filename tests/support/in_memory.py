"""Training with everything in memory, from start to end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sglora_cli.build.batches import AnyTask
from sglora_cli.build.training import JointTraining, OwnTraining, groups
from sglora_cli.config import TrainConfig
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.values import TaskTensors


def train_tasks(
    model: Model, layout: Layout, tasks: Sequence[TaskTensors], config: TrainConfig, start_P: Tensor | None = None
) -> Iterator[tuple[TaskTensors, Tensor]]:
    """Train every task from one shared start; yields (task, its last M states (M, P)) as tasks finish.

    start_P defaults to the layout's initial adapter. A build keeps states on disk: build/steps.py.
    """
    start_P = layout.initial(config.seed) if start_P is None else start_P
    for numbers in groups([len(task.stem_N) for task in tasks], config):
        group = [tasks[n] for n in numbers]
        training, states = OwnTraining(model, layout, group, config, start_P), list[Tensor]()
        for epoch in range(config.epochs):
            training.advance()
            if epoch >= config.epochs - config.states:
                states.append(training.adapters_TP.detach().to("cpu", copy=True))
        yield from zip(group, torch.stack(states, dim=1), strict=True)


def train_joint(model: Model, layout: Layout, tasks: Sequence[AnyTask], config: TrainConfig) -> Tensor:
    """One adapter (P,) for all tasks: mean over the last half of `joint_epochs` epochs."""
    training = JointTraining(model, layout, tasks, config, config.joint_epochs)
    for _ in range(config.joint_epochs):
        training.advance()
    return training.mean_P


def training_of(
    kind: str, model: Model, layout: Layout, tasks: Sequence[AnyTask], config: TrainConfig, epochs: int
) -> JointTraining | OwnTraining:
    """One adapter for all tasks ("joint"), or an own one for each ("own")."""
    if kind == "joint":
        return JointTraining(model, layout, tasks, config, epochs)
    return OwnTraining(model, layout, tasks, config, layout.initial(0))
