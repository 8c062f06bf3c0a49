"""Recall@k in percent, from the hits that the program counts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sglora_cli.bench.retrieval import KS, hits, percent


def recalls(
    image_ND: Tensor, text_CD: Tensor, image_of: Sequence[int], ks: Sequence[int] = KS
) -> dict[tuple[str, int], float]:
    """(direction, k) -> percent."""
    return {cell: percent(hit) for cell, hit in hits(image_ND, text_CD, image_of, ks).items()}
