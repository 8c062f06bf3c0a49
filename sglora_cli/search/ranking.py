"""Rank items by their scores without and with an adapter, and compare the two rankings.

Shapes: I items of one ranking.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sglora_cli.system.display import counted, plain


@dataclass(frozen=True)
class Change:
    """The difference between two rankings."""

    score: float
    """Mean absolute change of the scores."""
    moved: int
    """Number of top items whose rank changed."""
    entered: int
    """Number of top items that were not among the top items before."""
    top: int
    """Number of top items."""
    correlation: float | None
    """Spearman's rank correlation of all items; None if all scores of one side are equal."""


@dataclass(frozen=True)
class Ranking:
    """The items of one query, with their cosine similarities (I,) without and with the adapter."""

    query: str
    items: tuple[str, ...]
    before_I: Tensor
    after_I: Tensor

    def __repr__(self) -> str:
        return f"Ranking({plain(self.query)}: {counted(len(self.items), 'item')})"

    @cached_property
    def rank_before_I(self) -> Tensor:
        return ranks(self.before_I)

    @cached_property
    def rank_after_I(self) -> Tensor:
        return ranks(self.after_I)

    def top(self, count: int, before: bool = False) -> list[int]:
        """Return the first rows, best first, with the adapter or (`before`) without it. Ties keep their order."""
        scores_I = self.before_I if before else self.after_I
        rows: list[int] = torch.sort(scores_I, descending=True, stable=True).indices[:count].tolist()
        return rows

    def change(self, count: int) -> Change:
        top, old = self.top(count), set(self.top(count, before=True))
        return Change(
            score=float((self.after_I - self.before_I).double().abs().mean()),
            moved=sum(int(self.rank_before_I[i]) != int(self.rank_after_I[i]) for i in top),
            entered=len(set(top) - old),
            top=len(top),
            correlation=correlation(self.before_I, self.after_I),
        )


def ranks(scores_I: Tensor) -> Tensor:
    """Return the rank of every item: one plus the number of items with a higher score. Equal scores share a rank.

    >>> ranks(torch.tensor([0.1, 0.5, 0.5, 0.9]))
    tensor([4, 2, 2, 1])
    """
    return 1 + len(scores_I) - torch.searchsorted(scores_I.sort().values, scores_I, right=True)


def correlation(before_I: Tensor, after_I: Tensor) -> float | None:
    """Return Spearman's rank correlation, with mean ranks for ties. None if all scores of one side are equal.

    >>> correlation(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([3.0, 2.0, 1.0]))
    -1.0
    """
    centred = []
    for scores_I in (before_I, after_I):
        ordered_I = scores_I.sort().values
        first_I, last_I = (torch.searchsorted(ordered_I, scores_I, right=side) for side in (False, True))
        place_I = (first_I + last_I).double()  # twice the mean rank among equal scores
        centred.append(place_I - place_I.mean())
    spread = float(centred[0].square().sum() * centred[1].square().sum()) ** 0.5
    return float((centred[0] * centred[1]).sum()) / spread if spread > 0 else None
