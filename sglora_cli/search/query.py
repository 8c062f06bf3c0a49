"""Search queries: a sentence, a photo, or both.

If all photos show the same subject, the part of the query that names it does not help to rank them. Its direction u,
the unit embedding of a sentence such as "a photo of a pug", can be removed from the query q:

    q' = q - strength * (q . u) u,  normalised

An adapter of the image encoder cannot do this, because it does not change the text encoder. docs/how-to-search.md
compares the gain with that of an adapter for the same sentence.
Shapes: D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.data.description import cleaned_sentence
from sglora_cli.data.encode import mean_direction
from sglora_cli.errors import Mismatch, UsageError
from sglora_cli.search.encoder import Encoder


@dataclass(frozen=True)
class Query:
    """A search query."""

    sentence: str = ""
    like: Path | None = None
    """A photo that is similar to the wanted ones. Sentence and photo have equal weight."""
    within: str = ""
    """A sentence for what all photos show. Its direction is removed from the query."""
    strength: float = 0.0
    """The share of that direction to remove."""

    @classmethod
    def of(cls, sentence: str, like: Path | None, within: str, strength: float) -> Query:
        """Create a query. Raises UsageError if it is empty, or if a sentence has no words."""
        if not sentence and not like:
            raise UsageError("the query is empty", "pass a sentence, or --like PHOTO")
        texts = [cleaned_sentence(text) if text else "" for text in (sentence, within)]
        return cls(texts[0], like, texts[1], strength)

    def __str__(self) -> str:
        parts = [f"{self.sentence!r}"] * bool(self.sentence) + [f"like {self.like}"] * bool(self.like)
        within = f", within {self.within!r}" if self.within else ""
        return " and ".join(parts) + within

    def vector(self, encoder: Encoder, like_D: Tensor | None) -> Tensor:
        """Return the unit vector (D,) that photos are compared with. like_D: the embedding of the photo `like`.

        Raises Mismatch for a text that is too long, or if `within` removes the complete query.
        """
        parts = [] if like_D is None else [like_D]
        if self.sentence:
            parts.append(encoder.texts([self.sentence])[0])
        query_D = mean_direction([1.0] * len(parts), torch.stack(parts))
        if self.within:
            query_D = without_direction(query_D, encoder.texts([self.within])[0], self.strength)
        return query_D


def without_direction(query_D: Tensor, unit_D: Tensor, strength: float) -> Tensor:
    """Apply the equation above. Raises Mismatch if the query has no other direction.

    >>> without_direction(torch.tensor([0.6, 0.8]), torch.tensor([1.0, 0.0]), 1.0)
    tensor([0., 1.])
    """
    left_D = query_D - strength * (query_D @ unit_D) * unit_D
    if float(left_D.norm()) < 1e-3:
        raise Mismatch("the query means the same as --within, so nothing of it is left", "change one of the two")
    return F.normalize(left_D, dim=-1)
