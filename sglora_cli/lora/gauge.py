"""A common gauge for all adapters of a pack: B A = (B G)(G^-1 A) for every invertible G.

Factors can only be averaged in a common gauge. Shapes: O out_features, I in_features, R rank, M states, P parameters
of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sglora_cli.errors import Mismatch
from sglora_cli.lora.algebra import (
    NOTHING,
    Factors,
    relative,
    singular,
)
from sglora_cli.lora.layout import Layout


def into_gauge(b: Tensor, a: Tensor, reference_a: Tensor) -> Factors:
    """Return float32 factors of the same update B A (O, I) whose A is closest to a reference A (R, I).

    B A = (B G)(G^-1 A) for every invertible G, so equal updates can have entirely different factors,
    and a mean of factors (Eq. 7) or a network over them is only meaningful in a common gauge
    (docs/method.md, section 1). Adapters of a pack share a gauge because they start from the same A.
    This function brings an adapter from elsewhere into it. With the update's SVD U S V^T,

        A' = rho Q V^T,  B' = U S Q^T / rho,  rho = ||A_ref||_F / sqrt(R),

    where rho gives A' the norm of the reference and Q = W Z^T, from the SVD A_ref V = W . Z^T, is
    the rotation that brings A' closest to it (orthogonal Procrustes). A general G would come closer,
    but if the two row spaces are nearly orthogonal it makes A' tiny and B' huge.

    Idempotent. In an update of lower rank, the free rows of A' get directions of the reference
    outside its row space. A zero update gets the reference itself.
    Raises Mismatch if the rank of the factors is not the reference's.
    """
    if a.shape != reference_a.shape:
        raise Mismatch(f"an A of shape {tuple(a.shape)} cannot share a gauge with one of {tuple(reference_a.shape)}")
    rank, reference = a.shape[-2], reference_a.double()
    u, s, vh = singular(b, a)
    live = int((s > NOTHING * s[0]).sum()) if float(s[0]) > 0 else 0
    if live == 0 or float(reference.norm()) == 0:
        return (torch.zeros_like(b).float(), reference_a.float()) if live == 0 else (b.float(), a.float())
    rows = vh[:live]
    outside = reference - reference @ rows.mT @ rows
    rows = torch.cat([rows, torch.linalg.svd(outside, full_matrices=False).Vh[: rank - live]])
    w, _, zh = torch.linalg.svd(reference @ rows.mT)
    q, rho = w @ zh, reference.norm() / rank**0.5
    core = torch.nn.functional.pad(u[:, :live] * s[:live], (0, rank - live))
    return (core @ q.mT / rho).float(), (rho * q @ rows).float()


def gauge_distance(a: Tensor, reference_a: Tensor) -> Tensor:
    """Return ||A - A_ref||_F / ||A_ref||_F: (...). It is 0 in the same gauge, and about sqrt(2) in unrelated ones."""
    whole = reference_a.double().square().sum((-2, -1))
    return relative((a.double() - reference_a.double()).square().sum((-2, -1)), whole)


@dataclass(frozen=True)
class Gauged:
    """Adapters in the gauge of experts: (M, P), with distances of A over all sites, relative to the experts' mean A.

    before, after: distances of the farthest adapter, equal if none was changed. reach: that of the farthest expert.
    """

    states_MP: Tensor
    before: float
    after: float
    reach: float


@dataclass(frozen=True)
class Gauge:
    """A gauge of experts, given by their mean adapter (P,) and the distance of the farthest expert from it."""

    mean_P: Tensor = field(repr=False)
    farthest: tuple[float, ...] = field(repr=False)
    """The largest distance of an A from the mean A at each site."""
    reach: float
    """The largest distance over all sites."""


def gauge_of(layout: Layout, chunks: Callable[[], Iterable[Tensor]]) -> Gauge:
    """Determine the gauge of experts, given (n, P) at a time. Reads them twice, for the mean and for distances."""
    count, sum_P = 0, torch.zeros(layout.size, dtype=torch.float64)
    for some_NP in chunks():
        count, sum_P = count + len(some_NP), sum_P + some_NP.double().sum(dim=0)
    mean_P = sum_P / count
    references, farthest, reach = _references(layout, mean_P), [0.0] * len(layout.sites), 0.0
    for some_NP in chunks():
        experts = layout.split(some_NP)
        near = [float(gauge_distance(experts[name][1], a_RI).max()) for name, a_RI in references.items()]
        farthest = [max(one, other) for one, other in zip(farthest, near, strict=True)]
        reach = max(reach, _distance(experts, references))
    return Gauge(mean_P, tuple(farthest), reach)


def join_gauge(layout: Layout, adapters_MP: Tensor, gauge: Gauge) -> Gauged:
    """Bring adapters from elsewhere into the gauge of a pack's experts, without changing their updates.

    The reference of a site is the mean A of the experts there. If every adapter is as close to
    it as the farthest expert, the factors are kept. They already have the gauge, and their
    differences are what the adapters learned.
    """
    states, references = layout.split(adapters_MP), _references(layout, gauge.mean_P)
    gauged: dict[str, Factors] = {}
    for (name, (b_MOR, a_MRI)), farthest in zip(states.items(), gauge.farthest, strict=True):
        if bool((gauge_distance(a_MRI, references[name]) <= farthest + NOTHING).all()):
            gauged[name] = b_MOR, a_MRI
        else:
            moved = [into_gauge(b, a, references[name]) for b, a in zip(b_MOR, a_MRI, strict=True)]
            gauged[name] = torch.stack([b for b, _ in moved]), torch.stack([a for _, a in moved])
    before, after = (_distance(parts, references) for parts in (states, gauged))
    return Gauged(layout.join(gauged), before, after, gauge.reach)


def _references(layout: Layout, mean_P: Tensor) -> dict[str, Tensor]:
    """Return the mean A (R, I) of each site."""
    return {name: a_RI.double() for name, (_, a_RI) in layout.split(mean_P).items()}


def _distance(parts: Mapping[str, Factors], references: Mapping[str, Tensor]) -> float:
    flat_M = torch.cat([a.double().flatten(-2) for _, a in parts.values()], dim=-1)
    reference = torch.cat([references[name].flatten(-2) for name in parts], dim=-1)
    return float(relative((flat_M - reference).square().sum(-1), reference.square().sum(-1)).max())
