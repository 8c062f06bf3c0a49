"""In which numbers adapters are merged: three ways to take a site apart and put it together again.

factors   A and B, each for itself: what the paper does (Eq. 7), and PEFT's `add_weighted_adapter`
updates   the matrix B A, as if each adapter had been merged into the weights; the result is cut to the rank
aligned   KnOTS (Stoica et al. 2024): one SVD [B_1 A_1 ... B_K A_K] = U S [V_1^T ... V_K^T]; the V are
          merged, and the result U S V^T is cut to the rank

Sites of one shape are merged together, in batches of a bounded size, on the device of the adapters.

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
"""Stacks (K, S, ...), which it may overwrite -> (S, ...) of each."""

NOTHING = 1e-6
"""Directions below this part of the largest are rounding, and have no sign to vote with."""
AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Numbers of a batch of more than one site, by the kind of device. More would not be faster on a CPU."""


def factors(b_KSOR: Tensor, a_KSRI: Tensor, combine: Combine) -> Factors:
    a_SRI, b_SOR = combine(a_KSRI, b_KSOR)  # A first, as PEFT: with one seed both drop the same numbers
    return b_SOR, a_SRI


def updates(b_KSOR: Tensor, a_KSRI: Tensor, combine: Combine) -> Factors:
    return truncated(combine(b_KSOR @ a_KSRI)[0], b_KSOR.shape[-1])


def aligned(b_KSOR: Tensor, a_KSRI: Tensor, combine: Combine) -> Factors:
    u_SOF, s_SF, v_KSFI = _side_by_side(b_KSOR, a_KSRI)
    parts, start = [], 0
    # How many directions live decides how many numbers a trim keeps. Mostly it is the same at all sites.
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
    """Thin SVD of [B_1 A_1 ... B_K A_K] at each site, float64: U (S, O, F), s (S, F), V^T in K parts (K, S, F, I).

    As `singular`, but that the second factor is block diagonal, and so is its QR: no block of zeros is built.
    """
    count = len(b_KSOR)
    q_b, r_b = torch.linalg.qr(b_KSOR.movedim(0, 2).flatten(2).double())
    q_a, r_a = torch.linalg.qr(a_KSRI.double().mT)
    core = r_b.unflatten(-1, (count, -1)).permute(2, 0, 1, 3) @ r_a.mT
    u, s_SF, vh = torch.linalg.svd(core.movedim(0, 2).flatten(2), full_matrices=False)
    return _times(q_b, u), s_SF, vh.unflatten(-1, (count, -1)).movedim(-2, 0) @ q_a.mT


def _times(tall_SOF: Tensor, small_SFR: Tensor) -> Tensor:
    """Their product by its transpose, which takes a fifth of the time after a QR: it leaves columns in a row."""
    return (small_SFR.mT @ tall_SOF.mT).mT


@dataclass(frozen=True)
class Space:
    """A way to take sites apart and put them together again."""

    merge: Callable[[Tensor, Tensor, Combine], Factors]
    """B (K, S, O, R), A (K, S, R, I) and what combines stacks -> B (S, O, R), A (S, R, I), float32."""
    numbers: Callable[[Site, int, int], int]
    """How many numbers are combined at a site, of a rank, from K adapters."""


SPACES = {
    "factors": Space(factors, lambda site, rank, count: count * rank * (site.out_features + site.in_features)),
    "updates": Space(updates, lambda site, rank, count: count * site.out_features * site.in_features),
    "aligned": Space(aligned, lambda site, rank, count: count * count * rank * site.in_features),
}


def batches(layout: Layout, space: Space, count: int, device: torch.device, ordered: bool) -> Iterator[list[str]]:
    """The names of sites that are merged at once: of one shape, with at most AT_ONCE numbers, or a single site.

    ordered: whether the batches keep the order of the sites, which decides what is drawn for each.
    """

    def shape(site: Site) -> tuple[int, int]:
        return site.out_features, site.in_features

    for _, group in groupby(layout.sites if ordered else sorted(layout.sites, key=shape), key=shape):
        sites = list(group)
        most = max(1, AT_ONCE.get(device.type, 1) // max(1, space.numbers(sites[0], layout.rank, count)))
        for start in range(0, len(sites), most):
            yield [site.name for site in sites[start : start + most]]


def stock_ratio(b_KOR: Tensor, a_KRI: Tensor) -> Tensor:
    """Model Stock's t of one site: how far to go from the pretrained weight to the mean of the tuned ones.

    t = K cos / (1 + (K - 1) cos), cos the mean over pairs of updates (Jang et al. 2024, Eq. 5); 0
    where that has no value. One adapter alone is taken as it is.
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
    """The adapter with the update of each site times a number: B carries it."""
    parts = layout.split(flat_P)
    return layout.join({name: (b * by[name], a) for name, (b, a) in parts.items()})
