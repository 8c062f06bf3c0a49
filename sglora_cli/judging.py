"""How far a description is from the experts, and which of several draws to keep. Needs no data.

Shapes: E experts, S samples, P numbers of an adapter, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sglora_cli.errors import UsageError
from sglora_cli.semantics import Prior


@dataclass(frozen=True)
class Coverage:
    """How close a description is to the experts, and how close experts are to each other."""

    nearest: float
    """Similarity to the nearest expert; of meanings, or of photos where photos describe the task."""
    experts_E: Tensor = field(repr=False)
    """The same of each expert, left out, to the nearest other one."""

    @property
    def percentile(self) -> float:
        """Part of the experts that are at most this close to another expert, in percent."""
        return 100 * float((self.experts_E <= self.nearest).double().mean())

    @property
    def far(self) -> float:
        """19 of 20 experts are closer than this to another one; -1 where there is only one expert."""
        return float(torch.quantile(self.experts_E, 0.05)) if len(self.experts_E) > 1 else -1.0


def nearest_others(unit_ED: Tensor) -> Tensor:
    """Of each row, the similarity to the nearest other row: (E,)."""
    cosine_EE = unit_ED @ unit_ED.T
    return cosine_EE.fill_diagonal_(-2.0).amax(dim=1)


def log_density(prior: Prior, adapters_SP: Tensor) -> Tensor:
    """How likely each adapter is under N(mu*, sigma*^2), in nats a number, up to a constant: (S,).

    Variances count as at least a thousandth of their mean: some numbers of B hardly vary at all.
    """
    variance_P = prior.variance_P.double()
    variance_P = variance_P.clamp_min(1e-3 * float(variance_P.mean())).clamp_min(torch.finfo(torch.float32).tiny)
    return -((adapters_SP.double() - prior.mean_P) ** 2 / variance_P).mean(dim=1) / 2


def best_of(prior: Prior, adapters_SP: Tensor, count: int) -> tuple[int, ...]:
    """The `count` samples that the prior finds most likely, most likely first; ties keep their order.

    The score needs no data and promises nothing: it takes the samples that stray least from mu*.
    """
    if count > len(adapters_SP):
        raise UsageError(f"the best {count} of {len(adapters_SP)} samples cannot be kept", f"pass --samples {count}")
    return tuple(torch.sort(log_density(prior, adapters_SP), descending=True, stable=True).indices[:count].tolist())
