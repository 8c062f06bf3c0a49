"""Calibrated: one adapter for all seen tasks plus the contribution of the sentence's experts, both scaled.

    theta(d) = s * (theta_joint + share * (mu*(d) - mean of the experts))

theta_joint was trained on all seen tasks together and contains what they have in common, which is most of the gain of
an adapter. mu*(d), the prior's mean (Eq. 7), minus the experts' mean is specific to the sentence. Like regression
coefficients, trained adapters are too long for unseen tasks, so s shortens them. The value of a neighbour's specific
part differs between packs, so share scales it. Both are selected from a few values by the mean recall on the training
tasks' photos. During selection the warm-up adapter, trained on the experts only, replaces theta_joint, because
theta_joint has seen these photos. s scales the update by multiplying B only. All samples of a sentence are equal.

This is shrinkage as in James and Stein (1961). It comes from no paper on adapters.

Shapes: E experts, P parameters of an adapter, C candidates for s and share.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglora_cli.api import BadFile, Experts, Material, Mismatch, from_mapping, held_out_knob, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.api import Layout, Prior

SGLORA_API = "1.0"

SIZES, SHARES = (0.5, 0.625, 0.75, 0.875, 1.0), (0.5, 1.0, 2.0)
"""Candidates. A share of 0 is excluded, because it ignores the sentence and equals the generator `joint`."""


@dataclass(frozen=True)
class CalibratedConfig:
    """Settings of `calibrated` in a recipe."""

    held_out: int = held_out_knob()


@dataclass(frozen=True)
class FittedCalibrated:
    """A fitted calibrated generator."""

    layout: Layout
    joint_P: Tensor
    centre_P: Tensor
    size: float
    share: float

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, P). All samples are equal."""
        return point(self.layout, self.joint_P, prior.mean_P - self.centre_P, self.size, self.share).repeat(samples, 1)

    def tensors(self) -> dict[str, Tensor]:
        import torch

        return {"joint": self.joint_P, "centre": self.centre_P, "chosen": torch.tensor([self.size, self.share])}


def point(layout: Layout, base_P: Tensor, own_P: Tensor, size: float, share: float) -> Tensor:
    """Return the adapter of the update size * (base + share * own)."""
    import torch

    flat_P = base_P + share * own_P
    return torch.where(layout.b_mask(), size * flat_P, flat_P)


@dataclass(frozen=True)
class Calibrated:
    name: str = "calibrated"
    label: str = "Calibrated"
    summary: str = "joint plus the sentence's experts, scaled by calibration on training tasks"
    learns: bool = True
    draws: bool = False
    needs: str = ""
    config: type = CalibratedConfig

    def fit(self, material: Material, settings: Mapping[str, Any]) -> tuple[FittedCalibrated, dict[str, Any]]:
        """Select both factors. Raises Mismatch without training tasks."""
        import torch

        from_mapping(CalibratedConfig, settings, f"generators.{self.name}")
        if not material.tasks:
            raise Mismatch("'calibrated' needs training tasks", "add training tasks to the recipe")
        layout, centre_P = material.experts.layout, material.experts.means().mean(dim=0)
        base_P = centre_P if material.start_P is None else material.start_P
        choices = list(itertools.product(SIZES, SHARES))
        recall_C = torch.zeros(len(choices), dtype=torch.float64)
        for t, prior in enumerate(material.priors):
            own_P = prior.mean_P - centre_P
            tried_CP = torch.stack([point(layout, base_P, own_P, size, share) for size, share in choices])
            recall_C += material.recall(t, tried_CP).double() / len(material.tasks)
        best = int(recall_C.argmax())
        size, share = choices[best]
        material.note(f"calibrated: size {size:g}, share {share:g}, recall {float(recall_C[best]):.2f}")
        # In a fold, left-out training tasks count as unseen, so the joint adapter that saw them is not available.
        joint_P = material.joint_P if bool(torch.isfinite(material.joint_P).all()) else base_P
        return FittedCalibrated(layout, joint_P, centre_P, size, share), {
            "size": size,
            "share": share,
            "recall": float(recall_C[best]),
            "recall_unchanged": float(recall_C[choices.index((1.0, 1.0))]),
            "trained_on": {"tasks": len(material.tasks)},
        }

    def restore(self, experts: Experts, tensors: Mapping[str, Tensor]) -> FittedCalibrated:
        """Raises BadFile if the tensors do not match the pack's layout."""
        size = experts.layout.size
        try:
            joint_P, centre_P, chosen = (tensors[name].float() for name in ("joint", "centre", "chosen"))
        except KeyError as error:
            raise BadFile(
                f"the tensors are not of a calibrated generator: {error} is missing", "build the pack again"
            ) from None
        if joint_P.shape != (size,) or centre_P.shape != (size,) or chosen.shape != (2,):
            raise BadFile(
                f"the calibrated generator does not match adapters of {size} parameters", "build the pack again"
            )
        return FittedCalibrated(experts.layout, joint_P, centre_P, *chosen.tolist())


@hookimpl
def sglora_generators() -> list[Calibrated]:
    return [Calibrated()]
