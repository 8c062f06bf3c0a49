"""A generator that learns from the seen tasks' pairs instead of from their saved adapters.

SG-LoRA's CVAE (Eq. 9) is asked to reproduce adapters, each of which has learned what its few photos have in common
and much that they have by chance. Here the adapter of a sentence is

    theta(d) = theta_0 + sum_j w_j(d) V_j,      w_j(d): the sentence's j-th principal coordinate among the seen tasks',

and theta_0 and V_1 ... V_J are trained together by the loss every adapter is trained with, in batches inside tasks,
each seen task with the adapter of its own sentence. theta_0 is what all tasks share, V_j what changes along a
direction of meaning. It draws nothing: one sentence, one adapter. Nothing of an unseen task is used.

Shapes: P numbers of an adapter, J directions, U seen tasks, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Experts, Material, from_mapping, hookimpl, knob

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.api import Layout


@dataclass(frozen=True)
class PlusConfig:
    """How theta_0 and the directions are trained."""

    epochs: int = knob(60, "Passes over the seen tasks' training photos.", least=1)
    batch: int = knob(16, "Photos of one task in a step.", least=2)
    tasks_at_once: int = knob(4, "Tasks whose losses a step averages.", least=1)
    learning_rate: float = knob(3e-3, "Learning rate of Adam.", least=0)
    directions: int = knob(4, "J, directions of meaning; at most one fewer than the seen tasks.", least=1)
    spread: float = knob(0.3, "How far a task one deviation from the mean goes along a direction.", least=1e-6)


@dataclass(frozen=True)
class Plus:
    name: str = "plus"
    label: str = "SG-LoRA+"
    summary: str = "learned from the seen tasks' pairs: a shared adapter and directions that follow the sentence"
    learns: bool = True
    draws: bool = False
    config: type = PlusConfig

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        from .directions import fit

        return fit(material, from_mapping(PlusConfig, settings, "generators.plus"))

    def cost(self, layout: Layout, tasks: int, states: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        config = from_mapping(PlusConfig, settings, "generators.plus")
        parameters = layout.size * (1 + config.directions)
        # The rows, their sums in double precision, gradients and Adam's two moments.
        return {
            "parameters": parameters,
            "bytes": 24 * parameters,
            "stored_bytes": 4 * parameters,
            "epochs": config.epochs,
        }

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> Any:
        from .directions import restore

        return restore(experts, tensors)


@hookimpl
def sglora_generators() -> list[Plus]:
    return [Plus()]
