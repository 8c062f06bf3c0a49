"""Sentences -> vectors: what a model is asked for, whatever powers it has.

Shapes: N texts, D embedding width, W width of meaning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from sglora_cli.lora.prior import Query
from sglora_cli.plugin.contracts import EncodesMeaning, Model

_TEMPLATE = re.compile(
    r"^\s*(?:(?:an?|the)\s+)?(?:[\w-]+\s+)?(?:photo|picture|image|photograph|close-up|shot|snapshot)s?\s+of\s+",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^\s*(?:an?|the|my|some|his|her|our|their)\s+", re.IGNORECASE)


def meaning(model: Model, texts: Sequence[str]) -> Tensor:
    """Unit vectors in which unrelated texts are far apart: the model's `encode_meaning`, or its `encode_text`.

    An image-text space need not be one: it was never asked about sentences of no photo.
    """
    if isinstance(model, EncodesMeaning):
        return model.encode_meaning(texts).float()
    return model.encode_text(texts).float()


def phrase_of(sentence: str) -> str:
    """A sentence without its template and article.

    >>> phrase_of("a photo of a pug"), phrase_of("pug"), phrase_of("close-up of the dandelion")
    ('pug', 'pug', 'dandelion')
    """
    return _ARTICLE.sub("", _TEMPLATE.sub("", sentence)).strip() or sentence


def phrases(model: Model, texts: Sequence[str]) -> Tensor:
    """What each text is about: its phrase in the space of meanings, (N, W)."""
    return meaning(model, [phrase_of(text) for text in texts])


def queries(model: Model, texts: Sequence[str]) -> list[Query]:
    """Each text as the experts are asked about it."""
    if not texts:
        return []
    return [Query(d, w) for d, w in zip(model.encode_text(texts), phrases(model, texts), strict=True)]
