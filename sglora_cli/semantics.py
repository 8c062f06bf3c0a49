"""A sentence -> a prior over adapters: similarity, top K, weights, mean and variance.

SG-LoRA (arXiv 2509.10535), Eq. 6-8. Shapes: E experts, K selected, D embedding width, P numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sglora_cli.adapters import mix
from sglora_cli.configs import PriorConfig
from sglora_cli.contracts import Experts, Model
from sglora_cli.errors import Mismatch


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


def meaning(model: Model, texts: Sequence[str], text_CD: Tensor | None = None) -> Tensor:
    """Unit vectors in which unrelated sentences are far apart: the model's `encode_meaning`, or its `encode_text`,
    which is not asked again where `text_CD`, its answer, is at hand.

    An image-text space need not be one: it was never asked about sentences of no photo.
    """
    encode: Callable[[Sequence[str]], Tensor] | None = getattr(model, "encode_meaning", None)
    if encode is not None:
        return encode(texts).float()
    return (model.encode_text(texts) if text_CD is None else text_CD).float()


def check_text(model: Model, text: str) -> None:
    """Raises Mismatch if the model says that its `encode_text` would cut something off."""
    check: Callable[[str], None] | None = getattr(model, "check_text", None)
    if check is not None:
        check(text)


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


def prior(
    embedding_D: Tensor, index_ED: Tensor, experts: Experts, config: PriorConfig, without: Sequence[int] = ()
) -> Prior:
    """The prior of a sentence with unit embedding d*, over experts with unit embeddings d_e.

    `without` names rows that must not be selected (to ask as if an expert did not exist).
    Reads only the selected experts. Raises Mismatch for K out of range or a non-finite embedding.
    """
    if not bool(torch.isfinite(embedding_D).all()):
        raise Mismatch("the sentence's embedding is not finite", "this is a fault of the backbone")
    similarity_E = (index_ED.double() @ embedding_D.double()).float()
    open_E = similarity_E.clone()
    open_E[list(without)] = -2.0  # below every cosine
    if config.k > len(open_E) - len(set(without)):
        raise Mismatch(f"K = {config.k} is more than the {len(open_E) - len(set(without))} experts there are")
    rows, alpha_K = select(open_E, config.k, config.tau)
    mean_P, variance_P, within_P = moments(alpha_K, experts.means(rows), experts.variances(rows))
    return Prior(similarity_E, rows, alpha_K, mean_P, variance_P, within_P, embedding_D)
