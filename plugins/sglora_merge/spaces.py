"""In which numbers adapters are merged: three ways to take a site apart and put it together again.

factors   A and B, each for itself: what the paper does (Eq. 7), and PEFT's `add_weighted_adapter`
updates   the matrix B A, as if each adapter had been merged into the weights; the result is cut to the rank
aligned   KnOTS (Stoica et al. 2024): one SVD [B_1 A_1 ... B_K A_K] = U S [V_1^T ... V_K^T]; the V are
          merged, and the result U S V^T is cut to the rank

Shapes: K adapters, O out_features, I in_features, R rank, F <= K R directions of all adapters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sglora_cli.api import Layout, compress, singular, site_products

Combine = Callable[[Tensor], Tensor]
"""(K, ...) -> (...)."""
Factors = tuple[Tensor, Tensor]

NOTHING = 1e-6
"""Directions below this part of the largest are rounding, and have no sign to vote with."""


def factors(b_KOR: Tensor, a_KRI: Tensor, combine: Combine) -> Factors:
    a_RI = combine(a_KRI)  # A first, as PEFT: with one seed both drop the same numbers
    return combine(b_KOR), a_RI


def updates(b_KOR: Tensor, a_KRI: Tensor, combine: Combine) -> Factors:
    return cut(combine(b_KOR @ a_KRI), b_KOR.shape[-1])


def aligned(b_KOR: Tensor, a_KRI: Tensor, combine: Combine) -> Factors:
    count, rank, width = a_KRI.shape
    u_OF, s_F, vh = singular(torch.cat(list(b_KOR), dim=-1), torch.block_diag(*a_KRI))
    live = s_F > NOTHING * s_F[0]
    v_KFI = vh[live].unflatten(-1, (count, width)).movedim(1, 0)
    return compress(u_OF[:, live] * s_F[live], combine(v_KFI.float()).double(), rank)[:2]


def cut(dense_OI: Tensor, rank: int) -> Factors:
    """Balanced factors of the best approximation of this rank (Eckart-Young), without a whole SVD."""
    dense_OI = dense_OI.double()
    u_OR = torch.linalg.eigh(dense_OI @ dense_OI.mT).eigenvectors[:, -rank:]
    return compress(u_OR, u_OR.mT @ dense_OI, rank)[:2]


SPACES = {"factors": factors, "updates": updates, "aligned": aligned}


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
