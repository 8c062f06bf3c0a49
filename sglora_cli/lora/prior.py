"""A sentence -> a prior over adapters: similarity, top K, weights, mean, variance; how likely an adapter is under it.

SG-LoRA (arXiv 2509.10535), Eq. 6-8. Shapes: E experts, K selected, D embedding width, P numbers, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sglora_cli.errors import Mismatch, UsageError
from sglora_cli.lora.layout import mix


@dataclass(frozen=True)
class Prior:
    """Gaussian over adapters for one sentence.

    similarity_E: cosine similarity with every expert.  rows: the K selected experts, most similar
    first.  alpha_K: their weights.  mean_P, variance_P: mu* and sigma*^2; within_P is the part of
    the variance inside experts, the rest is between them.
    """

    similarity_E: Tensor
    rows: tuple[int, ...]
    alpha_K: Tensor
    mean_P: Tensor
    variance_P: Tensor
    within_P: Tensor
    embedding_D: Tensor

    def __repr__(self) -> str:
        weights = ", ".join(f"{row}: {float(a):.3f}" for row, a in zip(self.rows, self.alpha_K, strict=True))
        return f"Prior(of experts {{{weights}}}, {len(self.mean_P)} numbers)"


class Moments(Protocol):
    """Experts whose mean and variance can be read by row."""

    def means(self, rows: Sequence[int] | None = None) -> Tensor: ...
    def variances(self, rows: Sequence[int] | None = None) -> Tensor: ...


def select(similarity_E: Tensor, k: int, tau: float) -> tuple[tuple[int, ...], Tensor]:
    """The k most similar experts and their softmax weights (Eq. 6); ties go to the lower row.

    >>> select(torch.tensor([0.1, 0.9, 0.9]), k=2, tau=0.1)
    ((1, 2), tensor([0.5000, 0.5000]))
    """
    if not 1 <= k <= len(similarity_E):
        raise Mismatch(f"K must be between 1 and the number of experts, {len(similarity_E)}, got {k}")
    values, rows = torch.sort(similarity_E, descending=True, stable=True)
    return tuple(rows[:k].tolist()), torch.softmax(values[:k] / tau, dim=0)


def moments(alpha_K: Tensor, mean_KP: Tensor, variance_KP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mu*, sigma*^2, its part within experts), each (P,): Eq. 7 and 8, the law of total variance."""
    mean_P = mix(alpha_K, mean_KP)
    within_P = mix(alpha_K, variance_KP)
    between_P = mix(alpha_K, (mean_KP - mean_P) ** 2)
    return mean_P, within_P + between_P, within_P


def similarities(embedding_D: Tensor, index_ED: Tensor, first: int) -> Tensor:
    """Cosines of a unit embedding with unit rows: (E,). The `first` largest are as double precision gives them.

    The whole index in double precision would be a copy of twice its size for every sentence.
    """
    similarity_E = index_ED @ embedding_D.to(index_ED)
    first = min(max(first, 1), len(index_ED))
    error = index_ED.shape[1] * torch.finfo(index_ED.dtype).eps  # of two sums of D products, at most
    near = (similarity_E >= similarity_E.topk(first).values[-1] - error).nonzero().squeeze(1)
    similarity_E[near] = (index_ED[near].double() @ embedding_D.double()).to(similarity_E)
    return similarity_E


def prior(
    embedding_D: Tensor, index_ED: Tensor, experts: Moments, k: int, tau: float, without: Sequence[int] = ()
) -> Prior:
    """The prior of a sentence with unit embedding d*, over experts with unit embeddings d_e.

    without: rows that must not be selected, as if these experts did not exist.
    Reads only the selected experts. Raises Mismatch for K out of range or a non-finite embedding.
    """
    if not bool(torch.isfinite(embedding_D).all()):
        raise Mismatch("the sentence's embedding is not finite", "this is a fault of the backbone")
    similarity_E = similarities(embedding_D, index_ED, k + len(set(without)))
    allowed_E = similarity_E.clone()
    allowed_E[list(without)] = -2.0  # below every cosine
    if k > len(allowed_E) - len(set(without)):
        raise Mismatch(f"K = {k} is more than the {len(allowed_E) - len(set(without))} experts there are")
    rows, alpha_K = select(allowed_E, k, tau)
    mean_P, variance_P, within_P = moments(alpha_K, experts.means(rows), experts.variances(rows))
    return Prior(similarity_E, rows, alpha_K, mean_P, variance_P, within_P, embedding_D)


def log_density(prior: Prior, adapters_SP: Tensor) -> Tensor:
    """How likely each adapter is under N(mu*, sigma*^2), in nats a number, up to a constant: (S,).

    Variances are clamped to at least a thousandth of their mean: some numbers of B hardly vary.
    """
    variance_P = prior.variance_P.double()
    variance_P = variance_P.clamp_min(1e-3 * float(variance_P.mean())).clamp_min(torch.finfo(torch.float32).tiny)
    return -((adapters_SP.double() - prior.mean_P) ** 2 / variance_P).mean(dim=1) / 2


def best_of(prior: Prior, adapters_SP: Tensor, count: int) -> tuple[int, ...]:
    """The `count` samples that the prior finds most likely, most likely first; ties keep their order.

    The score needs no data and does not predict quality: it prefers the samples closest to mu*.
    """
    if count > len(adapters_SP):
        raise UsageError(f"the best {count} of {len(adapters_SP)} samples cannot be kept", f"pass --samples {count}")
    return tuple(torch.sort(log_density(prior, adapters_SP), descending=True, stable=True).indices[:count].tolist())
