"""The saved states of the training tasks in the scaled coordinates that generator networks use.

Shapes: P parameters of an adapter, R coordinates, B rows of a block, T training tasks, M states of a task.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sglora_cli.lora.coordinates import BLOCK, Projection, Scaling, projection
from sglora_cli.plugin.values import Material


def state_blocks(material: Material, whole: Scaling) -> Iterator[Tensor]:
    """Yield every state once, task by task, as (B, P) with B <= BLOCK."""
    for task in range(len(material.tasks)):
        for part in torch.arange(material.states_of_task).split(BLOCK):
            yield whole.inward(material.rows(task, part.tolist()))


def state_projection(material: Material, whole: Scaling, most: int, energy: float) -> tuple[Projection, float]:
    """Find the span of the experts and of the training tasks' states, and the share of squared norm it captures.

    See `lora.coordinates.projection`. An expert has the same weight as a training task: its mean counts M times.
    Reads every state once.
    """
    count = material.states_of_task * (len(material.experts.names) + len(material.tasks))
    return projection(_spanned(material, whole), whole, most, energy, count)


def _spanned(material: Material, whole: Scaling) -> Iterator[Tensor]:
    for part in torch.arange(len(material.experts.names)).split(BLOCK):
        yield whole.inward(material.experts.means(part.tolist())) * math.sqrt(material.states_of_task)
    yield from state_blocks(material, whole)


def state_spread(material: Material, whole: Scaling) -> float:
    """Return the mean squared distance of states to their overall mean, per number of `whole`.

    This is the error of a constant prediction.
    """
    total_P, count = torch.zeros(whole.size, dtype=torch.float64), len(material.tasks) * material.states_of_task
    square_P = torch.zeros_like(total_P)
    for x_BP in state_blocks(material, whole):
        total_P, square_P = total_P + x_BP.sum(dim=0).double(), square_P + (x_BP**2).sum(dim=0).double()
    return float((square_P / count - (total_P / count) ** 2).mean())


def state_coordinates(material: Material, scaling: Projection) -> tuple[Tensor, float, float]:
    """Return coordinates (T M, R) of every state, task by task, and two mean squares over states and the P parameters.

    The first, the spread, is the squared distance to the mean of all states, the error of a constant prediction.
    The second is the squared part outside the span, which the coordinates drop. The result takes 4 R bytes per state,
    and training then needs no further reads.
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
