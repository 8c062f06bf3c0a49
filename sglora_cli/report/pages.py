"""The pages of `report`, `try` and `data check`: their values are gathered here, templates/ says how they look.

A page is one HTML file that needs no network and runs nothing: every picture is inside it, and its own policy forbids
everything else. Jinja2 escapes every value.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from sglora_cli.bench.ranking import Change, Ranking, Trial
from sglora_cli.files.images import read_image

_PIXELS = 240  # longest side of a picture: sharp on a phone, about 10 kB

_TEMPLATES = Environment(
    loader=PackageLoader("sglora_cli.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _page(template: str, **values: object) -> bytes:
    """A whole page in UTF-8. Half of a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
    return _TEMPLATES.get_template(template).render(values).encode(errors="replace")


class Pictures:
    """Small JPEG copies of image files, each made once."""

    def __init__(self, files: Mapping[str, Path], pixels: int = _PIXELS) -> None:
        self._files, self._pixels = files, pixels
        self._sources: dict[str, str] = {}

    def source(self, name: str) -> str:
        """The `src` of an img. Raises BadFile if the image has gone or cannot be decoded."""
        if name not in self._sources:
            image = read_image(self._files[name])
            image.thumbnail((self._pixels, self._pixels))
            out = io.BytesIO()
            image.save(out, "JPEG", quality=75, optimize=True)
            self._sources[name] = _data_url("image/jpeg", out.getvalue())
        return self._sources[name]


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


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
    """The first items of a ranking, best first."""

    query: str
    size: int
    """How many items the whole ranking has."""
    change: Change
    top_before: Sequence[RankedItem]
    top_after: Sequence[RankedItem]

    @property
    def lowest(self) -> float:
        """The lowest score in `top_after`."""
        return min(min(item.before, item.after) for item in self.top_after)

    @property
    def highest(self) -> float:
        """The highest score in `top_after`."""
        return max(max(item.before, item.after) for item in self.top_after)


def try_page(trial: Trial, count: int) -> bytes:
    """The page of `sglora try`, with the first `count` items of every ranking. Raises BadFile if an image has gone."""
    rankings = [_ranking_top(ranking, count) for ranking in trial.rankings]
    return _page("try.html", trial=trial, rankings=rankings, pictures=Pictures(trial.photos))


def _ranking_top(ranking: Ranking, count: int) -> RankingTop:
    def item(row: int) -> RankedItem:
        ranks = int(ranking.rank_before_I[row]), int(ranking.rank_after_I[row])
        return RankedItem(ranking.items[row], *ranks, float(ranking.before_I[row]), float(ranking.after_I[row]))

    before, after = (list(map(item, ranking.top(count, before=side))) for side in (True, False))
    return RankingTop(ranking.query, len(ranking.items), ranking.change(count), before, after)
