"""Photos ranked for one query, without and with an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sglora_cli.search.encoder import DECIMALS, Encoder, cosines
from sglora_cli.search.query import Query
from sglora_cli.search.ranking import Ranking
from sglora_cli.system.display import counted, html_table, plain, quoted

_SHOWN = 10
"""The most photos in a notebook's table."""


@dataclass(frozen=True)
class SearchResults:
    """All readable photos, ranked for a query."""

    encoder: Encoder
    query: Query
    ranking: Ranking
    paths: Mapping[str, Path]
    """Paths of the ranked photos by name."""
    left_out: Sequence[str]
    """Photos that are byte-identical to the photo of `--like`."""
    skipped: Sequence[str]
    """Why other photos are skipped, in sentences."""
    computed: int
    """The number of photos that were decoded; the others were cached."""

    def __repr__(self) -> str:
        count, (row, *_) = len(self.ranking.items), self.ranking.top(1)
        first = f"first {quoted(self.ranking.items[row])} {float(self.ranking.after_I[row]):.3f}"
        return f"SearchResults({plain(self.query)}: {counted(count, 'photo')}, {first}; {self.encoder.line})"

    def _repr_html_(self) -> str:
        ranking = self.ranking
        facts = {"photos": len(ranking.items), "skipped": "; ".join(self.skipped) or None, **self.encoder.facts}
        adapted = bool(self.encoder.adapter)
        rows = []
        for row in ranking.top(_SHOWN):
            was = [int(ranking.rank_before_I[row])] * adapted
            rows.append([int(ranking.rank_after_I[row]), *was, float(ranking.after_I[row]), ranking.items[row]])
        header = ("rank", *["rank without"] * adapted, "score", "photo")
        return html_table(f"search for {self.query}", facts, header, rows)

    def best(self, count: int) -> list[Path]:
        """Return the paths of the first photos, best first."""
        return [self.paths[self.ranking.items[row]] for row in self.ranking.top(count)]

    def to_json(self, count: int) -> dict[str, Any]:
        """Return the first `count` photos as JSON values."""
        ranking = self.ranking
        results = []
        for row in ranking.top(count):
            path = str(self.paths[ranking.items[row]])
            rank, score = int(ranking.rank_after_I[row]), round(float(ranking.after_I[row]), DECIMALS)
            found = {"rank": rank, "score": score, "photo": ranking.items[row], "path": path}
            if self.encoder.adapter:
                found["rank_without"] = int(ranking.rank_before_I[row])
                found["score_without"] = round(float(ranking.before_I[row]), DECIMALS)
            results.append(found)
        query = self.query
        return {
            "sentence": query.sentence or None,
            "like": str(query.like) if query.like else None,
            "within": query.within or None,
            "adapter": self.encoder.file or None,
            "backbone": self.encoder.backbone,
            "fingerprint": self.encoder.model.fingerprint,
            "photos": len(ranking.items),
            "computed": self.computed,
            "left_out": list(self.left_out),
            "skipped": list(self.skipped),
            "results": results,
        }


def search(encoder: Encoder, photos: Mapping[str, Path], query: Query) -> SearchResults:
    """Rank photos for a query. Raises BadFile if none can be read, Mismatch for a text that is too long."""
    seen = encoder.photos(photos)
    left_out: list[str] = []
    rows = list(range(len(seen.names)))
    if query.like is None:
        query_2D = query.vector(encoder, None).expand(2, -1)
    else:
        like = encoder.photos({str(query.like): query.like})
        query_2D = torch.stack([query.vector(encoder, side_ND[0]) for side_ND in (like.plain_ND, like.adapted_ND)])
        left_out = [seen.names[row] for row in rows if seen.sha256s[row] == like.sha256s[0]]
        rows = [row for row in rows if seen.sha256s[row] != like.sha256s[0]]
    before_I, after_I = (
        cosines(image_ND[rows], query_D[None])[:, 0]
        for image_ND, query_D in zip((seen.plain_ND, seen.adapted_ND), query_2D, strict=True)
    )
    names = tuple(seen.names[row] for row in rows)
    ranking = Ranking(str(query), names, before_I, after_I)
    paths = {name: photos[name] for name in names}
    return SearchResults(encoder, query, ranking, paths, left_out, seen.skipped, seen.computed)
