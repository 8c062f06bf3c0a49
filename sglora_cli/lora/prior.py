"""From a sentence to a prior over adapters: similarity, top K, weights, mean, variance, and likelihood of adapters.

SG-LoRA (arXiv 2509.10535), Eq. 6-8. Shapes: E experts, K selected, D embedding width, W width of meaning, P parameters,
S samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.errors import Mismatch, UsageError
from sglora_cli.lora.layout import mix


@dataclass(frozen=True)
class Query:
    """A description encoded for comparison with the experts."""

    embedding_D: Tensor
    """d* = f(T), a unit vector in the space of images and texts."""
    meaning_W: Tensor
    """A unit vector of the backbone's own sentence encoder, or d* without one."""

    def __repr__(self) -> str:
        return f"Query(embedding of {len(self.embedding_D)} numbers, meaning of {len(self.meaning_W)})"


@dataclass(frozen=True)
class Prior:
    """A Gaussian over adapters for one sentence.

    similarity_E: cosine similarity with every expert.  rows: the K selected experts, most similar
    first.  alpha_K: their weights.  mean_P, variance_P: mu* and sigma*^2. within_P is the part of
    the variance within experts, the rest is between them.  tau: the temperature of the weights, NaN if unknown.
    """

    similarity_E: Tensor
    rows: tuple[int, ...]
    alpha_K: Tensor
    mean_P: Tensor
    variance_P: Tensor
    within_P: Tensor
    embedding_D: Tensor
    tau: float = math.nan

    def __repr__(self) -> str:
        weights = ", ".join(f"{row}: {float(a):.3f}" for row, a in zip(self.rows, self.alpha_K, strict=True))
        return f"Prior(of experts {{{weights}}}, {len(self.mean_P)} parameters)"


def cosines(embedding_D: Tensor, index_ED: Tensor, first: int) -> Tensor:
    """Return cosines of a unit vector with unit rows, (E,). The `first` largest are exact to double precision.

    Converting the complete index would copy twice its size for every sentence. Raises Mismatch if the vector is not
    finite.
    """
    if not bool(torch.isfinite(embedding_D).all()):
        raise Mismatch("the sentence's embedding is not finite", "report this to the author of the backbone")
    cosine_E = index_ED @ embedding_D.to(index_ED)
    first = min(max(first, 1), len(index_ED))
    error = index_ED.shape[1] * torch.finfo(index_ED.dtype).eps  # at most that of two sums of D products
    near = (cosine_E >= cosine_E.topk(first).values[-1] - error).nonzero().squeeze(1)
    cosine_E[near] = (index_ED[near].double() @ embedding_D.double()).to(cosine_E)
    return cosine_E


class Described(Protocol):
    """Experts with known descriptions. Each space may be read without the other."""

    @property
    def index_ED(self) -> Tensor: ...
    @property
    def meaning_EW(self) -> Tensor: ...


class Index:
    """The experts' descriptions d_e in each space in which sentences can be compared with them."""

    def __init__(self, experts: Described) -> None:
        self._experts = experts

    def similarity(self, query: Query, space: str, first: int) -> Tensor:
        """Return the cosine similarity with every expert in one of `config.SPACES`: (E,). first: see `cosines`."""
        if space == "meaning":
            return cosines(query.meaning_W, self._experts.meaning_EW, first)
        if space == "centred":
            own_D = F.normalize(query.embedding_D.double() - self._mean_D, dim=0)
            return cosines(own_D, self._centred_ED, first)
        return cosines(query.embedding_D, self._experts.index_ED, first)

    @cached_property
    def _mean_D(self) -> Tensor:
        return self._experts.index_ED.double().mean(dim=0)

    @cached_property
    def _centred_ED(self) -> Tensor:
        return F.normalize(self._experts.index_ED.double() - self._mean_D, dim=1).float()


class Moments(Protocol):
    """Experts with means and variances that can be read by row."""

    def means(self, rows: Sequence[int] | None = None) -> Tensor: ...
    def variances(self, rows: Sequence[int] | None = None) -> Tensor: ...


def select(similarity_E: Tensor, k: int, tau: float) -> tuple[tuple[int, ...], Tensor]:
    """Select the k most similar experts and their softmax weights (Eq. 6). Ties go to the lower row.

    >>> select(torch.tensor([0.1, 0.9, 0.9]), k=2, tau=0.1)
    ((1, 2), tensor([0.5000, 0.5000]))
    """
    if not 1 <= k <= len(similarity_E):
        raise Mismatch(f"K must be between 1 and the number of experts, {len(similarity_E)}, got {k}")
    values, rows = torch.sort(similarity_E, descending=True, stable=True)
    return tuple(rows[:k].tolist()), torch.softmax(values[:k] / tau, dim=0)


def moments(alpha_K: Tensor, mean_KP: Tensor, variance_KP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (mu*, sigma*^2, its part within experts), each (P,), by Eq. 7 and 8, the law of total variance."""
    mean_P = mix(alpha_K, mean_KP)
    within_P = mix(alpha_K, variance_KP)
    between_P = mix(alpha_K, (mean_KP - mean_P) ** 2)
    return mean_P, within_P + between_P, within_P


def prior(
    embedding_D: Tensor, similarity_E: Tensor, experts: Moments, k: int, tau: float, without: Sequence[int] = ()
) -> Prior:
    """Compute the prior of a sentence from its unit embedding d* and its cosine similarities with the experts.

    without: rows that must not be selected, as if these experts did not exist.
    Reads only the selected experts. Raises Mismatch for K out of range.
    """
    allowed_E = similarity_E.clone()
    allowed_E[list(without)] = -2.0  # below every cosine
    if k > len(allowed_E) - len(set(without)):
        raise Mismatch(f"K = {k} exceeds the {len(allowed_E) - len(set(without))} available experts")
    rows, alpha_K = select(allowed_E, k, tau)
    mean_P, variance_P, within_P = moments(alpha_K, experts.means(rows), experts.variances(rows))
    return Prior(similarity_E, rows, alpha_K, mean_P, variance_P, within_P, embedding_D, tau)


def prior_without(known: Prior, experts: Moments, row: int) -> Prior:
    """Return the prior of the same sentence as if one expert did not exist. The next similar expert replaces it.

    K becomes smaller if the pack has no other expert. Raises Mismatch if none is left, or if tau is unknown.
    """
    if math.isnan(known.tau):
        raise Mismatch("cannot leave an expert out of a prior with unknown temperature")
    k = min(len(known.rows), len(known.similarity_E) - 1)
    if k < 1:
        raise Mismatch("a prior needs at least one expert, but the only one is left out")
    return prior(known.embedding_D, known.similarity_E, experts, k, known.tau, [row])


def log_density(prior: Prior, adapters_SP: Tensor) -> Tensor:
    """Return the log density of each adapter under N(mu*, sigma*^2), in nats per parameter, up to a constant: (S,).

    Variances are clamped to at least a thousandth of their mean, because some parameters of B hardly vary.
    """
    variance_P = prior.variance_P.double()
    variance_P = variance_P.clamp_min(1e-3 * float(variance_P.mean())).clamp_min(torch.finfo(torch.float32).tiny)
    return -((adapters_SP.double() - prior.mean_P) ** 2 / variance_P).mean(dim=1) / 2


def best_of(prior: Prior, adapters_SP: Tensor, count: int) -> tuple[int, ...]:
    """Return the `count` most likely samples under the prior, most likely first. Ties keep their order.

    The score needs no data and does not predict quality. It prefers the samples closest to mu*.
    """
    if count > len(adapters_SP):
        raise UsageError(f"cannot keep the best {count} of {len(adapters_SP)} samples", f"pass --samples {count}")
    return tuple(torch.sort(log_density(prior, adapters_SP), descending=True, stable=True).indices[:count].tolist())
