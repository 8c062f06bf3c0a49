"""The best rank-R approximation of dense matrices without computing all singular vectors.

`torch.linalg.eigh` of G = M M^T computes O vectors, but only R are needed. Here a block of W > R directions is
multiplied by polynomials in G until its first R directions are eigenvectors. This is Chebyshev-filtered subspace
iteration (Zhou, Saad, Tiago and Chelikowsky 2006). A polynomial is small below the last eigenvalue of the block and
grows above it as fast as its degree allows, so no gap behind eigenvalue R is needed.

The residuals G u - g u bound the distance of a direction from an eigenvector. A matrix whose bound does not become
small enough in time, for example because of equal singular values at R, falls back to `eigh`.

Shapes: S matrices, O out_features, I in_features, R rank, W width of the block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sglora_cli.api import compress

Factors = tuple[Tensor, Tensor]

TOLERANCE = 1e-8
"""The largest relative error of an approximation. It is below the rounding of the float32 factors."""
LEAST = 256
"""Below this many rows, `eigh` is as fast."""
_SPARE = 8
"""Minimum number of directions beyond R. The block width is a multiple of it, which makes products faster."""
_PRODUCTS, _ROUNDS = 0.1, 12
"""Limits before the fallback to `eigh`: products with G per row, and polynomials."""
_RANGE = math.log(1e7)
"""The logarithm of the largest ratio by which a polynomial may stretch directions. Rounding limits it."""
_TINY = 1e-300


def truncated(dense_SOI: Tensor, rank: int) -> Factors:
    """Return balanced factors of the best rank-R approximation (Eckart-Young): B (S, O, R), A (S, R, I), float32.

    Computes in float64 on the device of the matrices and needs about 30 bytes per matrix entry.
    """
    dense_SOI = dense_SOI.double()
    if dense_SOI.shape[1] > dense_SOI.shape[2]:
        v_SIR = leading(dense_SOI.mT, rank)
        return compress(dense_SOI @ v_SIR, v_SIR.mT, rank)[:2]
    u_SOR = leading(dense_SOI, rank)
    return compress(u_SOR, u_SOR.mT @ dense_SOI, rank)[:2]


def leading(dense_SOI: Tensor, rank: int) -> Tensor:
    """Return an orthonormal basis of the first R (at most O) left singular vectors of each matrix: (S, O, R)."""
    size = dense_SOI.shape[1]
    width = _SPARE * math.ceil((rank + _SPARE) / _SPARE)
    if size < max(LEAST, 4 * width):
        return _by_eigh(dense_SOI, rank)
    u_SOR, found_S = _by_filter(dense_SOI, rank, width)
    if not bool(found_S.all()):
        u_SOR[~found_S] = _by_eigh(dense_SOI[~found_S], rank)
    return u_SOR


def _by_eigh(dense_SOI: Tensor, rank: int) -> Tensor:
    return torch.linalg.eigh(dense_SOI @ dense_SOI.mT).eigenvectors[..., -rank:]


def _by_filter(dense_SOI: Tensor, rank: int, width: int) -> tuple[Tensor, Tensor]:
    """Like `leading`, also returning which matrices converged: (S,). The polynomials do not depend on the batch."""
    count, size, _ = dense_SOI.shape
    u_SOR = dense_SOI.new_zeros(count, size, rank)
    open_S = torch.arange(count, device=dense_SOI.device)
    found_S, products_S = torch.zeros_like(open_S, dtype=torch.bool), torch.ones_like(open_S)
    # A random start independent of the matrices, so that a matrix is unlikely to have a direction orthogonal to it.
    start_WO = torch.randn(width, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Directions are rows, because a block times a large matrix is up to three times as fast as the reverse order.
    grown_SWO = start_WO.to(dense_SOI) @ dense_SOI @ dense_SOI.mT
    for _ in range(_ROUNDS):
        value_SW, u_SWO, g_SWO = _ritz(dense_SOI, grown_SWO)
        error_S = _error(value_SW, u_SWO, g_SWO, rank)
        done_S = error_S <= TOLERANCE
        u_SOR[open_S[done_S]], found_S[open_S[done_S]] = u_SWO[done_S, :rank].mT, True
        low_S = value_SW[:, -1].clamp_min(_TINY).maximum(1e-12 * value_SW[:, 0])
        # The logarithm of how much a direction grows per degree, relative to directions below the block.
        growth_SW = (2 * value_SW / low_S[:, None] - 1).clamp_min(1).acosh().clamp_min(_TINY)
        needed_S = ((error_S / TOLERANCE).log() / growth_SW[:, rank - 1]).ceil()
        degree_S = needed_S.minimum((_RANGE / growth_SW[:, 0]).floor()).clamp_min(1)
        on_S = ~done_S & (products_S + needed_S <= _PRODUCTS * size)
        if not bool(on_S.any()):
            break
        products_S = products_S + degree_S
        if not bool(on_S.all()):
            open_S, dense_SOI, products_S, degree_S, low_S, u_SWO, g_SWO = (
                x[on_S] for x in (open_S, dense_SOI, products_S, degree_S, low_S, u_SWO, g_SWO)
            )
        grown_SWO = _chebyshev(dense_SOI, u_SWO, g_SWO, low_S / 2, degree_S)
    return u_SOR, found_S


def _ritz(dense_SOI: Tensor, grown_SWO: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return Ritz values of G in the span of a block, largest first (S, W), their vectors u as rows, and G u."""
    q_SWO = torch.linalg.qr(grown_SWO.mT).Q.mT
    image_SWI = q_SWO @ dense_SOI
    value_SW, turn_SWW = torch.linalg.eigh(image_SWI @ image_SWI.mT)
    turn_SWW = turn_SWW.flip(-1).mT
    return value_SW.flip(-1).clamp_min(0), turn_SWW @ q_SWO, turn_SWW @ image_SWI @ dense_SOI.mT


def _error(value_SW: Tensor, u_SWO: Tensor, g_SWO: Tensor, rank: int) -> Tensor:
    """Return the excess error of M's approximation in the span of the first R directions over the best one: (S,).

    It is relative to the approximation. A direction is rotated by at most residual / gap (Davis and Kahan 1970) and
    weighted by its singular value.
    """
    first_SR = value_SW[:, :rank]
    residual_SR = (g_SWO[:, :rank] - first_SR[..., None] * u_SWO[:, :rank]).norm(dim=-1)
    gap_SR = (first_SR - value_SW[:, rank : rank + 1]).clamp_min(_TINY)
    lost_S = (first_SR * (residual_SR / gap_SR).clamp_max(1).square()).sum(dim=1)
    return (2 * lost_S / first_SR.sum(dim=1).clamp_min(_TINY)).sqrt()


def _chebyshev(dense_SOI: Tensor, u_SWO: Tensor, g_SWO: Tensor, half_S: Tensor, degree_S: Tensor) -> Tensor:
    """Return T(G / half - 1) u of a degree. It is bounded by |u| for eigenvalues below 2 half and grows above."""
    half_S11, degree_S11 = half_S[:, None, None], degree_S[:, None, None]
    last_SWO, now_SWO = u_SWO, g_SWO / half_S11 - u_SWO
    for degree in range(2, int(degree_S.max()) + 1):
        next_SWO = 2 * ((now_SWO @ dense_SOI @ dense_SOI.mT) / half_S11 - now_SWO) - last_SWO
        last_SWO, now_SWO = now_SWO, torch.where(degree <= degree_S11, next_SWO, now_SWO)
    return now_SWO
