"""What a generator learns from, in the numbers that its networks see: the saved states of the training tasks.

Shapes: P numbers of an adapter, R coordinates, B rows of a block, T training tasks, M states of a task.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sglora_cli.lora.coordinates import BLOCK, Projection, Scaling, projection
from sglora_cli.plugin.values import Material


def state_blocks(material: Material, whole: Scaling) -> Iterator[Tensor]:
    """(B, P), B <= BLOCK: every state once, task by task."""
    for task in range(len(material.tasks)):
        for part in torch.arange(material.states_of_task).split(BLOCK):
            yield whole.inward(material.rows(task, part.tolist()))


def state_projection(material: Material, whole: Scaling, most: int, energy: float) -> tuple[Projection, float]:
    """The span of the experts and of the training tasks' states, and the share of squared norm it keeps.

    See `lora.coordinates.projection`. An expert counts as much as a training task: its mean, M times. Reads every
    state once.
    """
    count = material.states_of_task * (len(material.experts.names) + len(material.tasks))
    return projection(_spanned(material, whole), whole, most, energy, count)


def _spanned(material: Material, whole: Scaling) -> Iterator[Tensor]:
    for part in torch.arange(len(material.experts.names)).split(BLOCK):
        yield whole.inward(material.experts.means(part.tolist())) * math.sqrt(material.states_of_task)
    yield from state_blocks(material, whole)


def state_spread(material: Material, whole: Scaling) -> float:
    """Mean squared distance of states to the mean of all, a number of `whole`: what a constant would err."""
    total_P, count = torch.zeros(whole.size, dtype=torch.float64), len(material.tasks) * material.states_of_task
    square_P = torch.zeros_like(total_P)
    for x_BP in state_blocks(material, whole):
        total_P, square_P = total_P + x_BP.sum(dim=0).double(), square_P + (x_BP**2).sum(dim=0).double()
    return float((square_P / count - (total_P / count) ** 2).mean())


def state_coordinates(material: Material, scaling: Projection) -> tuple[Tensor, float, float]:
    """(T M, R) of every state, task by task; spread and dropped squares, means over states and the P numbers.

    Spread: squared distance to the mean of all states, what a constant would err. Dropped: what lies outside of the
    span. 4 R bytes a state stay in memory, and training then reads nothing.
    """
    total_P = torch.zeros(scaling.whole.size, dtype=torch.float64)
    square_P, dropped, known = torch.zeros_like(total_P), 0.0, []
    for x_BP in state_blocks(material, scaling.whole):
        known.append(scaling.coordinates(x_BP))
        dropped += float(scaling.outside(x_BP).double().square().sum())
        total_P, square_P = total_P + x_BP.sum(dim=0).double(), square_P + (x_BP**2).sum(dim=0).double()
    known_NR = torch.cat(known)
    spread = float((square_P / len(known_NR) - (total_P / len(known_NR)) ** 2).mean())
    return known_NR, spread, dropped / (len(known_NR) * scaling.whole.size)
