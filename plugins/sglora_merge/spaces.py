"""The three spaces in which adapters are merged: how a site is taken apart and put back together.

factors   A and B separately, as in the paper (Eq. 7) and in PEFT's `add_weighted_adapter`
updates   the matrix B A, as if each adapter were merged into the weights; the result is cut to the rank
aligned   KnOTS (Stoica et al. 2024): one SVD [B_1 A_1 ... B_K A_K] = U S [V_1^T ... V_K^T]; the V are
          merged, and the result U S V^T is cut to the rank

Sites of the same shape are merged together in batches of bounded size, on the device of the adapters.

Shapes: K adapters, S sites of one shape, O out_features, I in_features, R rank, F <= K R directions of all adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from sglora_cli.api import Layout, Site, balanced, site_products

from .dense import Factors, truncated

Combine = Callable[..., list[Tensor]]
"""Combines each stack (K, S, ...) into (S, ...), and may overwrite it."""

NOTHING = 1e-6
"""Directions smaller than this fraction of the largest are rounding errors without a meaningful sign."""
AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Numbers in a batch of several sites, by device type. Larger batches are not faster on a CPU."""


def factors(b_KSOR: Tensor, a_KSRI: Tensor, combine: Combine) -> Factors:
    a_SRI, b_SOR = combine(a_KSRI, b_KSOR)  # A first, as in PEFT, so that a seed drops the same numbers
    return b_SOR, a_SRI


def updates(b_KSOR: Tensor, a_KSRI: Tensor, combine: Combine) -> Factors:
    return truncated(combine(b_KSOR @ a_KSRI)[0], b_KSOR.shape[-1])


def aligned(b_KSOR: Tensor, a_KSRI: Tensor, combine: Combine) -> Factors:
    u_SOF, s_SF, v_KSFI = _side_by_side(b_KSOR, a_KSRI)
    parts, start = [], 0
    # The number of non-zero directions determines how many numbers a trim keeps. It is mostly equal for all sites.
    for live, run in groupby((s_SF > NOTHING * s_SF[:, :1]).sum(dim=1).tolist()):
        here = slice(start, start := start + len(list(run)))
        v_SFI = combine(v_KSFI[:, here, :live].float().contiguous())[0].double()
        q, r = torch.linalg.qr(v_SFI.mT)
        turn, s, vh = torch.linalg.svd(s_SF[here, :live, None] * r.mT, full_matrices=False)
        u_SOR = _times(u_SOF[here, :, :live], turn[..., : b_KSOR.shape[-1]])
        parts.append(balanced(u_SOR, s, vh @ q.mT, b_KSOR.shape[-1]))
    b, a = zip(*parts, strict=True)
    return torch.cat(b), torch.cat(a)


def _side_by_side(b_KSOR: Tensor, a_KSRI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the thin SVD of [B_1 A_1 ... B_K A_K] per site, float64: U (S, O, F), s (S, F), V^T split (K, S, F, I).

    Like `singular`, but the second factor and its QR are block diagonal, so no zero blocks are built.
    """
    count = len(b_KSOR)
    q_b, r_b = torch.linalg.qr(b_KSOR.movedim(0, 2).flatten(2).double())
    q_a, r_a = torch.linalg.qr(a_KSRI.double().mT)
    core = r_b.unflatten(-1, (count, -1)).permute(2, 0, 1, 3) @ r_a.mT
    u, s_SF, vh = torch.linalg.svd(core.movedim(0, 2).flatten(2), full_matrices=False)
    return _times(q_b, u), s_SF, vh.unflatten(-1, (count, -1)).movedim(-2, 0) @ q_a.mT


def _times(tall_SOF: Tensor, small_SFR: Tensor) -> Tensor:
    """Multiply via the transpose, which takes a fifth of the time after a QR because of its memory layout."""
    return (small_SFR.mT @ tall_SOF.mT).mT


@dataclass(frozen=True)
class Space:
    """A space for merging."""

    merge: Callable[[Tensor, Tensor, Combine], Factors]
    """Maps B (K, S, O, R), A (K, S, R, I) and a Combine to B (S, O, R), A (S, R, I), float32."""
    numbers: Callable[[Site, int, int], int]
    """Returns how many numbers are combined at a site, given the rank and the number K of adapters."""


SPACES = {
    "factors": Space(factors, lambda site, rank, count: count * rank * (site.out_features + site.in_features)),
    "updates": Space(updates, lambda site, rank, count: count * site.out_features * site.in_features),
    "aligned": Space(aligned, lambda site, rank, count: count * count * rank * site.in_features),
}


def batches(layout: Layout, space: Space, count: int, device: torch.device, ordered: bool) -> Iterator[list[str]]:
    """Yield names of sites merged in one batch. They have the same shape and at most AT_ONCE numbers, or one site.

    ordered: whether batches keep the order of the sites, on which random drops depend.
    """

    def shape(site: Site) -> tuple[int, int]:
        return site.out_features, site.in_features

    for _, group in groupby(layout.sites if ordered else sorted(layout.sites, key=shape), key=shape):
        sites = list(group)
        most = max(1, AT_ONCE.get(device.type, 1) // max(1, space.numbers(sites[0], layout.rank, count)))
        for start in range(0, len(sites), most):
            yield [site.name for site in sites[start : start + most]]


def stock_ratio(b_KOR: Tensor, a_KRI: Tensor) -> Tensor:
    """Return Model Stock's t of one site, the interpolation from the pretrained weight to the mean of the tuned ones.

    t = K cos / (1 + (K - 1) cos), with cos the mean over pairs of updates (Jang et al. 2024, Eq. 5). It is 0
    where this is undefined, and 1 for a single adapter.
    """
    count = len(b_KOR)
    if count == 1:
        return torch.ones(())
    inner_KK = site_products(b_KOR, a_KRI)
    norm_K = inner_KK.diagonal().clamp_min(0).sqrt()
    cosine_KK = (inner_KK / (norm_K[:, None] * norm_K).clamp_min(1e-6)).clamp(-1, 1)
    one, other = torch.triu_indices(count, count, 1)
    cosine = cosine_KK[one, other].mean()
    below = 1 + (count - 1) * cosine
    return (count * cosine / below if abs(below) >= 1e-6 else torch.zeros(())).float()


def scaled(layout: Layout, flat_P: Tensor, by: dict[str, Tensor | float]) -> Tensor:
    """Return the adapter with each site's update multiplied by a number, applied to B."""
    parts = layout.split(flat_P)
    return layout.join({name: (b * by[name], a) for name, (b, a) in parts.items()})
