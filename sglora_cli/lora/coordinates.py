"""Adapters and priors as inputs of a network: all P parameters, or R coordinates in the adapters' span.

Shapes: E experts, P parameters of an adapter, R coordinates, B rows of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import Moments, Prior

BLOCK = 32
"""Rows per block, and the number of extra directions kept until the last row has been processed."""
_PART = 8192
"""Numbers of a row that are converted to double precision at once."""


class Adapters(Moments, Protocol):
    """Experts of one layout with readable means and variances."""

    layout: Layout


@dataclass(frozen=True)
class Scaling:
    """All P parameters, centred and divided by a unit."""

    centre_P: Tensor
    unit_P: Tensor

    @classmethod
    def of(cls, experts: Adapters) -> Scaling:
        """Centre on the experts' mean, with the root mean square deviations of B and of A as units."""
        mean_EP = experts.means()
        centre_P = mean_EP.mean(dim=0)
        square_P = ((mean_EP - centre_P) ** 2).mean(dim=0) + experts.variances().mean(dim=0)
        in_b_P = experts.layout.b_mask()
        unit_P = torch.empty_like(centre_P)
        for part_P in (in_b_P, ~in_b_P):
            unit_P[part_P] = square_P[part_P].mean().sqrt().clamp_min(1e-8)
        return cls(centre_P, unit_P)

    @property
    def size(self) -> int:
        """The number of inputs of the networks."""
        return len(self.centre_P)

    @property
    def weight(self) -> float:
        """The squared error in all P parameters per squared error in the networks' inputs."""
        return 1.0

    def inward(self, adapters: Tensor) -> Tensor:
        return (adapters - self.centre_P) / self.unit_P

    def outward(self, numbers: Tensor) -> Tensor:
        return numbers * self.unit_P + self.centre_P

    def condition(self, prior: Prior) -> Tensor:
        """Return c = {mu*, sigma*^2} as (2 P,)."""
        return torch.cat([self.inward(prior.mean_P), prior.variance_P.sqrt() / self.unit_P])

    def tensors(self) -> dict[str, Tensor]:
        return {"centre": self.centre_P, "unit": self.unit_P}


@dataclass(frozen=True)
class Projection:
    """R coordinates of adapters scaled by `whole`. The part outside their span is dropped."""

    whole: Scaling
    basis_RP: Tensor
    """Orthonormal rows, up to the rounding of a file."""
    unit: float
    """The root mean square of a coordinate. It is the same for all, which preserves ratios of distances."""

    @property
    def size(self) -> int:
        return len(self.basis_RP)

    @property
    def weight(self) -> float:
        return self.unit**2

    def inward(self, adapters: Tensor) -> Tensor:
        return self.coordinates(self.whole.inward(adapters))

    def coordinates(self, whole: Tensor) -> Tensor:
        """Return (..., R) of (..., P) scaled by `whole`."""
        return whole @ self.basis_RP.T / self.unit

    def outside(self, whole: Tensor) -> Tensor:
        """Return the dropped part: (..., P)."""
        return whole - self.coordinates(whole) * self.unit @ self.basis_RP

    def outward(self, numbers: Tensor) -> Tensor:
        return self.whole.outward(numbers * self.unit @ self.basis_RP)

    def condition(self, prior: Prior) -> Tensor:
        """Return coordinates of mu* and, assuming independent P parameters, their standard deviations: (2 R,)."""
        deviation_P = prior.variance_P.sqrt() / self.whole.unit_P
        deviation_R = torch.stack([(row_P * deviation_P).norm() for row_P in self.basis_RP])
        return torch.cat([self.inward(prior.mean_P), deviation_R / self.unit])

    def tensors(self) -> dict[str, Tensor]:
        return {**self.whole.tensors(), "basis": self.basis_RP.half(), "coordinate_unit": torch.tensor([self.unit])}


AnyScaling = Scaling | Projection


def restored_projection(tensors: Mapping[str, Tensor], size: int) -> Projection:
    """Recreate a projection from its `tensors()` for adapters of `size` parameters. Raises KeyError, ValueError."""
    centre_P, unit_P, basis_RP, unit = (
        tensors[name].float() for name in ("centre", "unit", "basis", "coordinate_unit")
    )
    shapes = [tuple(one.shape) for one in (centre_P, unit_P, basis_RP, unit)]
    if shapes != [(size,), (size,), (len(basis_RP), size), (1,)]:
        raise ValueError(f"the projection has shapes {shapes}, but the pack's adapters have {size} parameters")
    return Projection(Scaling(centre_P, unit_P), basis_RP, float(unit))


def projection(
    blocks: Iterable[Tensor], whole: Scaling, most: int, energy: float, count: int
) -> tuple[Projection, float]:
    """Return the span of rows (B, P) scaled by `whole`, and the share of squared norm that it captures.

    It has at most `most` directions, strongest first, or fewer if they capture the share `energy`. The rows represent
    `count` adapters, which defines the unit of a coordinate. Needs memory for (most + 2 BLOCK, P).
    """
    square_R, basis_RP, total = span(blocks, most + BLOCK)
    held_R = square_R.cumsum(0) / total
    rank = min(most, 1 + int((held_R < energy).sum()), len(square_R))
    # Round to the precision of the file, so that networks learn on the stored basis.
    basis_RP = torch.linalg.qr(basis_RP[:rank].T).Q.T.contiguous().half().float()
    unit = math.sqrt(float(square_R[:rank].sum()) / (count * rank))
    return Projection(whole, basis_RP, float(torch.tensor(max(unit, 1e-8)))), float(held_R[rank - 1])


def span(blocks: Iterable[Tensor], most: int) -> tuple[Tensor, Tensor, float]:
    """Return (squared singular values (R,), right singular vectors (R, P), squared norm) of rows given in blocks.

    Blockwise (Brand 2006): the strongest `most` directions represent all previous rows. This is exact if the rows
    have no more directions, otherwise the weakest ones are slightly underestimated. Equal rows give equal results.
    """
    sketch_RP, total, square_R = torch.empty(0, 0), 0.0, torch.empty(0)
    for block_BP in blocks:
        stack_NP = torch.cat([sketch_RP, block_BP]) if len(sketch_RP) else block_BP
        gram_NN = torch.zeros(len(stack_NP), len(stack_NP), dtype=torch.float64)
        for part in stack_NP.split(_PART, dim=1):
            gram_NN += part.double() @ part.double().T
        total += float(gram_NN.diagonal()[len(sketch_RP) :].sum())
        value_N, vector_NN = torch.linalg.eigh(gram_NN)
        # Rows are float32, so directions below its rounding are noise.
        kept = [n for n in range(len(value_N) - 1, -1, -1) if value_N[n] > 1e-10 * value_N[-1]][:most]
        square_R, sketch_RP = value_N[kept], vector_NN[:, kept].T.float() @ stack_NP
    return square_R, sketch_RP / square_R.sqrt().float()[:, None], total
