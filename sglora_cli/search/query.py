"""What photos are compared with: a sentence, a photo, or both.

Where all photos show the same thing, the part of the query that names it says nothing. Its direction u, the unit
embedding of a sentence such as "a photo of a pug", can be taken out of the query q:

    q' = q - strength * (q . u) u,  normalised

An adapter of the image encoder cannot do that, as it does not reach the text encoder. docs/how-to-search.md has what it
gains beside the adapter of the same sentence.
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
    """What is looked for."""

    sentence: str = ""
    like: Path | None = None
    """A photo that shows what is looked for. With a sentence, both count the same."""
    within: str = ""
    """What all photos show, as a sentence: its direction is taken out."""
    strength: float = 0.0
    """How much of it."""

    @classmethod
    def of(cls, sentence: str, like: Path | None, within: str, strength: float) -> Query:
        """Raises UsageError if nothing is looked for, or a sentence has no word."""
        if not sentence and not like:
            raise UsageError("there is nothing to look for", "pass a sentence, or --like PHOTO")
        texts = [cleaned_sentence(text) if text else "" for text in (sentence, within)]
        return cls(texts[0], like, texts[1], strength)

    def __str__(self) -> str:
        parts = [f"{self.sentence!r}"] * bool(self.sentence) + [f"like {self.like}"] * bool(self.like)
        within = f", within {self.within!r}" if self.within else ""
        return " and ".join(parts) + within

    def vector(self, encoder: Encoder, like_D: Tensor | None) -> Tensor:
        """The unit vector (D,) that photos are compared with. like_D: the embedding of the photo `like`.

        Raises Mismatch for a text that is too long, or if nothing of the query is left.
        """
        parts = [] if like_D is None else [like_D]
        if self.sentence:
            parts.append(encoder.texts([self.sentence])[0])
        query_D = mean_direction([1.0] * len(parts), torch.stack(parts))
        if self.within:
            query_D = without_direction(query_D, encoder.texts([self.within])[0], self.strength)
        return query_D


def without_direction(query_D: Tensor, unit_D: Tensor, strength: float) -> Tensor:
    """The equation above. Raises Mismatch if the query has no other direction.

    >>> without_direction(torch.tensor([0.6, 0.8]), torch.tensor([1.0, 0.0]), 1.0)
    tensor([0., 1.])
    """
    left_D = query_D - strength * (query_D @ unit_D) * unit_D
    if float(left_D.norm()) < 1e-3:
        raise Mismatch("the query and --within say the same: nothing is left to look for", "look for something else")
    return F.normalize(left_D, dim=-1)
