"""Sentences -> vectors: what a model is asked for, whatever powers it has.

Shapes: N texts, D embedding width, W width of meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sglora_cli.lora.prior import Query
from sglora_cli.plugin.contracts import EncodesMeaning, Model


def meaning(model: Model, texts: Sequence[str]) -> Tensor:
    """Unit vectors in which unrelated texts are far apart: the model's `encode_meaning`, or its `encode_text`.

    An image-text space need not be one: it was never asked about sentences of no photo.
    """
    if isinstance(model, EncodesMeaning):
        return model.encode_meaning(texts).float()
    return model.encode_text(texts).float()


def queries(model: Model, texts: Sequence[str]) -> list[Query]:
    """Each text as the experts are asked about it."""
    if not texts:
        return []
    embedding_ND = model.encode_text(texts)
    meaning_NW = model.encode_meaning(texts) if isinstance(model, EncodesMeaning) else embedding_ND
    return [Query(d, w) for d, w in zip(embedding_ND, meaning_NW.float(), strict=True)]
