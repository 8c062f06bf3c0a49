"""The pages of `search`, `classify` and `try`. This module collects their values, and templates/ defines the layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sglora_cli.report.html import Pictures, page
from sglora_cli.search.classes import Classes
from sglora_cli.search.comparison import Comparison
from sglora_cli.search.ranking import Change, Ranking
from sglora_cli.search.relevance import Relevance
from sglora_cli.search.results import SearchResults

_PIXELS = 240
"""Longest side of a picture, which looks sharp on a phone."""
_OF_A_NAME = 60
"""Maximum number of pictures per name."""


@dataclass(frozen=True)
class RankedItem:
    """An item of a ranking: its rank and score without (`before`) and with the adapter (`after`)."""

    name: str
    rank_before: int
    rank_after: int
    before: float
    after: float


@dataclass(frozen=True)
class RankingTop:
    """The first items of a ranking, best first, and the ranks of all items."""

    query: str
    ranks: Sequence[tuple[int, int]]
    """Ranks of every item in the complete ranking, without and with the adapter."""
    change: Change
    top_before: Sequence[RankedItem]
    top_after: Sequence[RankedItem]

    @property
    def size(self) -> int:
        return len(self.ranks)

    @property
    def lowest(self) -> float:
        """The lowest score in `top_after`."""
        return min(min(item.before, item.after) for item in self.top_after)

    @property
    def highest(self) -> float:
        """The highest score in `top_after`."""
        return max(max(item.before, item.after) for item in self.top_after)


def try_page(comparison: Comparison, count: int, relevance: Relevance | None = None) -> bytes:
    """Render the page of `sglora try`, with the first `count` items of every ranking.

    relevance: the ranks of the right photos, which are marked. Raises BadFile if an image is missing.
    """
    return page(
        "try.html",
        comparison=comparison,
        rankings=[_ranking_top(ranking, count) for ranking in comparison.rankings],
        relevance=relevance,
        measures=relevance.rows() if relevance else [],
        right=frozenset(relevance.relevant) if relevance else frozenset(),
        pictures=Pictures(comparison.photos, _PIXELS),
    )


def search_page(results: SearchResults, count: int) -> bytes:
    """Render the page of `sglora search`, with the first `count` photos. Raises BadFile if a photo is missing."""
    top = _ranking_top(results.ranking, count)
    return page("search.html", results=results, top=top, pictures=Pictures(results.paths, _PIXELS))


@dataclass(frozen=True)
class ClassTop:
    """Photos assigned to one name, with the highest probability first."""

    name: str
    count: int
    photos: Sequence[tuple[str, float, str]]
    """The first photos: name, probability, and the class without the adapter if it differs."""


def classes_page(result: Classes) -> bytes:
    """Render the page of `sglora classify`, with at most 60 photos per name. Raises BadFile if a photo is missing."""
    tops = []
    for name in result.names:
        rows = result.of(name)
        without = [result.names[int(result.without_N[row])] for row in rows[:_OF_A_NAME]]
        photos = [
            (result.photos[row], float(result.probability_N[row]), before if before != name else "")
            for row, before in zip(rows, without, strict=False)
        ]
        tops.append(ClassTop(name, len(rows), photos))
    return page("classify.html", result=result, tops=tops, pictures=Pictures(result.paths, _PIXELS))


def _ranking_top(ranking: Ranking, count: int) -> RankingTop:
    def item(row: int) -> RankedItem:
        ranks = int(ranking.rank_before_I[row]), int(ranking.rank_after_I[row])
        return RankedItem(ranking.items[row], *ranks, float(ranking.before_I[row]), float(ranking.after_I[row]))

    before, after = (list(map(item, ranking.top(count, before=side))) for side in (True, False))
    ranks = list(zip(ranking.rank_before_I.tolist(), ranking.rank_after_I.tolist(), strict=True))
    return RankingTop(ranking.query, ranks, ranking.change(count), before, after)
