"""ICM-LoRA as a baseline: the CVAE is told which task it is by a task vector, and nothing of the experts.

ICM-LoRA reproduces adapters of the tasks it learned, a closed world. For an unseen task there is no task vector of
its data; its sentence's embedding d* takes the place, for which the method was not made. Networks, scaling, learned
prior and training are those of `cvae`: the two rows differ in the condition only, d instead of {mu*, sigma*^2}.

Shapes: P numbers of an adapter, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sglora_cli.api import BadFile, Experts, Material, Prior

from . import CvaeConfig, network
from .scaling import Scaling


class TaskVector(Scaling):
    """Adapters scaled as ever; the condition is d."""

    def condition(self, prior: Prior) -> Tensor:
        """(D,), of unit mean square: the numbers of a unit vector are too small for the first layer."""
        return prior.embedding_D * len(prior.embedding_D) ** 0.5


def fit(material: Material, config: CvaeConfig) -> tuple[network.FittedCvae, dict[str, Any]]:
    return network.fit(material, config, TaskVector)


def restore(experts: Experts, tensors: Mapping[str, Tensor]) -> network.FittedCvae:
    """From `tensors()`. Raises BadFile if they do not fit the pack's layout."""
    weight = tensors.get("network.prior.0.weight")
    if weight is None or weight.ndim != 2:
        raise BadFile("these are not the tensors of ICM-LoRA's CVAE", "build the pack again")
    return network.restore(experts, tensors, TaskVector, weight.shape[1])
