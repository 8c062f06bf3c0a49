"""Adapters and priors in the numbers that a network sees: all P of them, or R coordinates in the adapters' span.

Shapes: E experts, P numbers of an adapter, R coordinates, B rows of a block.
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
"""Rows of a block; as many directions more than asked for are kept until the last row was seen."""
_PART = 8192
"""Numbers of a row in double precision at once."""


class Adapters(Moments, Protocol):
    """Experts of one layout whose means and variances can be read."""

    layout: Layout


@dataclass(frozen=True)
class Scaling:
    """All P numbers, centred and in units of their own."""

    centre_P: Tensor
    unit_P: Tensor

    @classmethod
    def of(cls, experts: Adapters) -> Scaling:
        """Centre: the experts' mean. Unit: root mean square deviation of B's numbers and of A's, each."""
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
        """How many numbers the networks see."""
        return len(self.centre_P)

    @property
    def weight(self) -> float:
        """Squared error in all P numbers of one in the networks' numbers."""
        return 1.0

    def inward(self, adapters: Tensor) -> Tensor:
        return (adapters - self.centre_P) / self.unit_P

    def outward(self, numbers: Tensor) -> Tensor:
        return numbers * self.unit_P + self.centre_P

    def condition(self, prior: Prior) -> Tensor:
        """c = {mu*, sigma*^2} as (2 P,)."""
        return torch.cat([self.inward(prior.mean_P), prior.variance_P.sqrt() / self.unit_P])

    def tensors(self) -> dict[str, Tensor]:
        return {"centre": self.centre_P, "unit": self.unit_P}


@dataclass(frozen=True)
class Projection:
    """R coordinates of what `whole` makes of an adapter; what lies outside of their span is dropped."""

    whole: Scaling
    basis_RP: Tensor
    """Orthonormal rows, but for the rounding of a file."""
    unit: float
    """Root mean square of a coordinate: one for all, so that distances keep their proportions."""

    @property
    def size(self) -> int:
        return len(self.basis_RP)

    @property
    def weight(self) -> float:
        return self.unit**2

    def inward(self, adapters: Tensor) -> Tensor:
        return self.coordinates(self.whole.inward(adapters))

    def coordinates(self, whole: Tensor) -> Tensor:
        """(..., R) of (..., P) in the numbers of `whole`."""
        return whole @ self.basis_RP.T / self.unit

    def outside(self, whole: Tensor) -> Tensor:
        """What is dropped: (..., P)."""
        return whole - self.coordinates(whole) * self.unit @ self.basis_RP

    def outward(self, numbers: Tensor) -> Tensor:
        return self.whole.outward(numbers * self.unit @ self.basis_RP)

    def condition(self, prior: Prior) -> Tensor:
        """(2 R,): coordinates of mu*, and their standard deviations if the P numbers vary independently."""
        deviation_P = prior.variance_P.sqrt() / self.whole.unit_P
        deviation_R = torch.stack([(row_P * deviation_P).norm() for row_P in self.basis_RP])
        return torch.cat([self.inward(prior.mean_P), deviation_R / self.unit])

    def tensors(self) -> dict[str, Tensor]:
        return {**self.whole.tensors(), "basis": self.basis_RP.half(), "coordinate_unit": torch.tensor([self.unit])}


AnyScaling = Scaling | Projection


def restored_projection(tensors: Mapping[str, Tensor], size: int) -> Projection:
    """From `Projection.tensors()`, for adapters of `size` numbers. Raises KeyError, ValueError if they are not that."""
    centre_P, unit_P, basis_RP, unit = (
        tensors[name].float() for name in ("centre", "unit", "basis", "coordinate_unit")
    )
    shapes = [tuple(one.shape) for one in (centre_P, unit_P, basis_RP, unit)]
    if shapes != [(size,), (size,), (len(basis_RP), size), (1,)]:
        raise ValueError(f"the projection's shapes are {shapes}, the pack's adapters have {size} numbers")
    return Projection(Scaling(centre_P, unit_P), basis_RP, float(unit))


def projection(
    blocks: Iterable[Tensor], whole: Scaling, most: int, energy: float, count: int
) -> tuple[Projection, float]:
    """The span of rows (B, P) in the numbers of `whole`, and the share of squared norm it keeps.

    At most `most` directions, strongest first, fewer if they already hold the share `energy`. The rows stand for
    `count` adapters, which gives a coordinate its unit. Keeps (most + 2 BLOCK, P) in memory.
    """
    square_R, basis_RP, total = span(blocks, most + BLOCK)
    held_R = square_R.cumsum(0) / total
    rank = min(most, 1 + int((held_R < energy).sum()), len(square_R))
    # What a file keeps is what the networks learn on.
    basis_RP = torch.linalg.qr(basis_RP[:rank].T).Q.T.contiguous().half().float()
    unit = math.sqrt(float(square_R[:rank].sum()) / (count * rank))
    return Projection(whole, basis_RP, float(torch.tensor(max(unit, 1e-8)))), float(held_R[rank - 1])


def span(blocks: Iterable[Tensor], most: int) -> tuple[Tensor, Tensor, float]:
    """(squared singular values (R,), right singular vectors (R, P), squared norm) of rows that come in blocks.

    Blockwise (Brand 2006): the strongest `most` directions so far stand for all rows before. Exact where the rows
    have no more directions than that; else the weakest are a little too weak. Equal rows give equal results.
    """
    sketch_RP, total, square_R = torch.empty(0, 0), 0.0, torch.empty(0)
    for block_BP in blocks:
        stack_NP = torch.cat([sketch_RP, block_BP]) if len(sketch_RP) else block_BP
        gram_NN = torch.zeros(len(stack_NP), len(stack_NP), dtype=torch.float64)
        for part in stack_NP.split(_PART, dim=1):
            gram_NN += part.double() @ part.double().T
        total += float(gram_NN.diagonal()[len(sketch_RP) :].sum())
        value_N, vector_NN = torch.linalg.eigh(gram_NN)
        # Rows are float32: directions below its rounding are noise of the arithmetic.
        kept = [n for n in range(len(value_N) - 1, -1, -1) if value_N[n] > 1e-10 * value_N[-1]][:most]
        square_R, sketch_RP = value_N[kept], vector_NN[:, kept].T.float() @ stack_NP
    return square_R, sketch_RP / square_R.sqrt().float()[:, None], total
