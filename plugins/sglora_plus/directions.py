"""theta_0 and the directions V: their training, and the adapter of a sentence. See the package's docstring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sglora_cli.api import BadFile, Experts, JointTraining, Material, Prior, Unavailable

from . import PlusConfig

_FAR = 2.5
"""Deviations: a sentence unlike all seen ones goes no further along a direction than the farthest of them would."""


@dataclass(frozen=True)
class Coordinates:
    """A sentence's principal coordinates among the seen tasks' sentences, in deviations."""

    centre_D: Tensor
    axis_JD: Tensor

    @classmethod
    def of(cls, embedding_UD: Tensor, directions: int) -> Coordinates:
        """The J directions along which the sentences differ most; fewer if there are not as many."""
        x_UD = embedding_UD.double()
        centre_D = x_UD.mean(dim=0)
        _, size_J, axis_JD = torch.linalg.svd(x_UD - centre_D, full_matrices=False)
        kept = int((size_J[:directions] > 1e-6 * size_J[0].clamp_min(1e-12)).sum())
        axis_JD, deviation_J = axis_JD[:kept], size_J[:kept] / len(x_UD) ** 0.5
        largest = axis_JD.abs().argmax(dim=1, keepdim=True)  # a singular vector's sign is arbitrary
        axis_JD = axis_JD * axis_JD.gather(1, largest).sign()
        return cls(centre_D.float(), (axis_JD / deviation_J[:, None]).float())

    def weights(self, embedding_UD: Tensor, spread: float) -> Tensor:
        """(U, 1 + J): 1 for theta_0, then the coordinates times `spread`."""
        along_UJ = ((embedding_UD.float() - self.centre_D) @ self.axis_JD.T).clamp(-_FAR, _FAR)
        return torch.cat([torch.ones(len(along_UJ), 1), spread * along_UJ], dim=1)


@dataclass(frozen=True)
class FittedPlus:
    coordinates: Coordinates
    spread: float
    rows_JP: Tensor
    """theta_0, then V."""

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """(S, P), all the same: nothing is drawn."""
        weight_1J = self.coordinates.weights(prior.embedding_D[None], self.spread)
        return (weight_1J @ self.rows_JP).repeat(samples, 1)

    def tensors(self) -> dict[str, Tensor]:
        return {
            "centre": self.coordinates.centre_D,
            "axes": self.coordinates.axis_JD,
            "spread": torch.tensor([self.spread]),
            "rows": self.rows_JP,
        }


def restore(experts: Experts, tensors: Mapping[str, Tensor]) -> FittedPlus:
    """From `tensors()`. Raises BadFile if they do not fit the pack's layout."""
    try:
        centre_D, axis_JD, spread, rows_JP = (tensors[name].float() for name in ("centre", "axes", "spread", "rows"))
    except KeyError as error:
        raise BadFile(f"these are not the tensors of the generator 'plus': {error}", "build the pack again") from None
    if (
        rows_JP.shape != (len(axis_JD) + 1, experts.layout.size)
        or axis_JD.shape[1:] != centre_D.shape
        or spread.shape != (1,)
    ):
        raise BadFile("the generator 'plus' was made for another pack", "build the pack again")
    return FittedPlus(Coordinates(centre_D, axis_JD), float(spread), rows_JP)


def fit(material: Material, config: PlusConfig) -> tuple[FittedPlus, dict[str, Any]]:
    """Train on the seen tasks' pairs; also returns the loss. Raises Unavailable if the material has none."""
    if material.seen is None:
        raise Unavailable(
            "the generator 'plus' learns from photos, and there are none", "fit it in `sglora pack build`"
        )
    seen = material.seen
    coordinates = Coordinates.of(seen.embedding_UD, config.directions)
    training = JointTraining(
        seen.model,
        material.experts.layout,
        seen.tasks,
        replace(
            seen.config,
            batch=config.batch,
            tasks_at_once=config.tasks_at_once,
            joint_learning_rate=config.learning_rate,
        ),
        config.epochs,
        coordinates.weights(seen.embedding_UD, config.spread),
    )
    loss = 0.0
    if material.checkpoint and (found := material.checkpoint.load()):
        training.restore(found[0])
        loss = found[1]["loss"]
    while training.epoch < config.epochs:
        (loss,) = training.advance()
        if training.epoch % 10 == 0:
            material.note(f"plus: epoch {training.epoch} of {config.epochs}, loss {loss:.3f}")
        if material.checkpoint and material.checkpoint.due:
            material.checkpoint.save(training.tensors(), {"loss": loss})
    fitted = FittedPlus(coordinates, config.spread, training.mean_JP)
    return fitted, {
        "parameters": fitted.rows_JP.numel(),
        "trained_on": {"tasks": len(seen.tasks), "photos": sum(len(task.stem_N) for task in seen.tasks)},
        "directions": len(coordinates.axis_JD),
        "loss": loss,
    }
