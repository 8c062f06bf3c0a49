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
