"""Encode sentences with a model, using its optional sentence encoder if it has one.

Shapes: N texts, D embedding width, W width of meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sglora_cli.lora.prior import Query
from sglora_cli.plugin.contracts import EncodesMeaning, Model


def meaning(model: Model, texts: Sequence[str]) -> Tensor:
    """Encode texts as unit vectors that separate unrelated texts, with `encode_meaning` or else `encode_text`.

    An image-text space may not separate them, because it was not trained on sentences unrelated to photos.
    """
    if isinstance(model, EncodesMeaning):
        return model.encode_meaning(texts).float()
    return model.encode_text(texts).float()


def queries(model: Model, texts: Sequence[str]) -> list[Query]:
    """Encode each text as a query to the experts."""
    if not texts:
        return []
    embedding_ND = model.encode_text(texts)
    meaning_NW = model.encode_meaning(texts) if isinstance(model, EncodesMeaning) else embedding_ND
    return [Query(d, w) for d, w in zip(embedding_ND, meaning_NW.float(), strict=True)]
