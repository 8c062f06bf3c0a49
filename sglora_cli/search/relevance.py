"""Measure how well relevant photos rank, without and with an adapter: precision at k, average precision, reciprocal
rank.

An irrelevant photo that ties with a relevant one is ranked before it, as in all measures of this project. Shapes: I
photos of a ranking, B resamples.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sglora_cli.data.photo_store import PhotoFiles, photo_store
from sglora_cli.errors import BadFile, UsageError
from sglora_cli.files.images import image_endings, image_files
from sglora_cli.files.text import decoded
from sglora_cli.files.untrusted import read_bytes
from sglora_cli.search.comparison import Comparison
from sglora_cli.system.display import counted, html_table

K = 10
RESAMPLES, SEED = 2000, 0
FEWEST = 5
"""The fewest relevant photos for a verdict. The bootstrap resamples them and underestimates the variance of a few."""
_LIST_LIMIT = 1 << 28
_AT_ONCE = 1 << 22
"""The most photos of all resamples in memory at once."""
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measures:
    """Measures of one side, averaged over the sentences."""

    precision: float
    """Share of relevant photos among the first K, or among all if there are fewer."""
    average_precision: float
    """Mean precision at the ranks of the relevant photos."""
    reciprocal_rank: float
    """1 / rank of the first relevant photo."""


@dataclass(frozen=True)
class Relevance:
    """How well the relevant photos rank, without and with an adapter."""

    relevant: Sequence[str]
    """Names of the relevant photos."""
    of: int
    """Number of all photos."""
    k: int
    before: Measures
    after: Measures
    difference: float
    """Average precision with the adapter minus average precision without it."""
    low: float
    """The lower end of its 95 % interval, by a bootstrap over photos; `high` is the upper end."""
    high: float

    def __repr__(self) -> str:
        return f"Relevance({len(self.relevant)} of {counted(self.of, 'photo')} are relevant: {self.verdict})"

    def _repr_html_(self) -> str:
        facts = {"relevant photos": f"{len(self.relevant)} of {self.of}", "verdict": self.verdict}
        return html_table("ranking of the relevant photos", facts, ("measure", "without", "with"), self.rows())

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the name of each measure, and its values without and with the adapter."""
        names = {
            f"P@{self.k}": "precision",
            "average precision": "average_precision",
            "reciprocal rank": "reciprocal_rank",
        }
        return [
            (name, f"{getattr(self.before, key):.3f}", f"{getattr(self.after, key):.3f}") for name, key in names.items()
        ]

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        gap = f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        if len(self.relevant) < FEWEST:
            return f"A verdict needs at least {FEWEST} relevant photos: average precision {gap}."
        if self.low > 0:
            return f"The adapter helps: average precision {gap}."
        if self.high < 0:
            return f"The adapter makes the ranking worse: average precision {gap}."
        return f"The adapter makes no significant difference: average precision {gap}."

    def to_json(self) -> dict[str, Any]:
        sides = {"before": asdict(self.before), "after": asdict(self.after)}
        gap = {"mean": self.difference, "low": self.low, "high": self.high}
        return {"photos": len(self.relevant), "of": self.of, "k": self.k, **sides, "difference": gap}


def order_of(scores_I: Floats, right_I: Bools) -> NDArray[np.intp]:
    """Return the rows by rank, best first. Among equal scores, irrelevant photos come first."""
    return np.lexsort((right_I, -scores_I))


def measures(scores_I: Floats, right_I: Bools, k: int = K) -> Measures:
    """Compute the measures of one ranking.

    >>> measures(np.array([0.9, 0.8, 0.7, 0.6]), np.array([False, True, False, True]), k=2)
    Measures(precision=0.5, average_precision=0.5, reciprocal_rank=0.5)
    """
    ordered_I = right_I[order_of(scores_I, right_I)]
    ranks = 1 + np.nonzero(ordered_I)[0]
    precisions = np.arange(1, len(ranks) + 1) / ranks
    return Measures(float(ordered_I[:k].mean()), float(precisions.mean()), float(1 / ranks[0]))


def judged(comparison: Comparison, relevant: Sequence[str]) -> Relevance:
    """Measure how the photos with these names rank for the sentences of a comparison.

    The interval is from a paired bootstrap over photos, which resamples relevant and irrelevant photos separately.
    Raises UsageError if none or all of the photos are relevant.
    """
    items = comparison.rankings[0].items
    chosen = set(relevant)
    right_I = np.array([name in chosen for name in items])
    if right_I.all() or not right_I.any():
        how = "all" if right_I.all() else "none"
        raise UsageError(
            f"{how} of the {counted(len(items), 'photo')} are relevant", "pass some of the photos as relevant"
        )
    sides = [
        [(ranking.before_I if before else ranking.after_I).double().numpy() for ranking in comparison.rankings]
        for before in (True, False)
    ]
    before, after = (_mean([measures(scores_I, right_I) for scores_I in side]) for side in sides)
    before_B, after_B = (np.mean([_resampled(scores_I, right_I) for scores_I in side], axis=0) for side in sides)
    low, high = np.quantile(after_B - before_B, [0.025, 0.975])
    gap = after.average_precision - before.average_precision
    names = [name for name in items if name in chosen]
    return Relevance(names, len(items), min(K, len(items)), before, after, gap, float(low), float(high))


def _mean(of: Sequence[Measures]) -> Measures:
    return Measures(*(float(np.mean(column)) for column in zip(*(asdict(one).values() for one in of), strict=True)))


def _resampled(scores_I: Floats, right_I: Bools) -> Floats:
    """Return the average precision in B resamples. Calls with the same `right_I` resample the same photos."""
    rng, order_I = np.random.default_rng(SEED), order_of(scores_I, right_I)
    rank_I = np.empty(len(order_I), dtype=np.int64)
    rank_I[order_I] = np.arange(len(order_I))
    right_at_I = right_I[order_I]
    parts = []
    step = max(1, _AT_ONCE // len(scores_I))
    for first in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - first)
        drawn = [rng.choice(np.nonzero(side)[0], size=(rows, int(side.sum()))) for side in (right_I, ~right_I)]
        right_BI = right_at_I[np.sort(rank_I[np.concatenate(drawn, axis=1)], axis=1)]
        precision_BI = right_BI.cumsum(axis=1) / np.arange(1, len(scores_I) + 1)
        parts.append((precision_BI * right_BI).sum(axis=1) / right_BI.sum(axis=1))
    return np.concatenate(parts)


def relevant_photos(which: str, photos: Mapping[str, Path], folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the selected photos, and the lines of a list that match no photo.

    which: a photo or its name relative to `folder`; a folder with the photos or with byte-identical copies of them; a
    text file with one path or name per line; or a pattern of names, such as "pug/*". Raises BadFile, and UsageError if
    no photo is selected.
    """
    place = Path(which)
    strays: list[str] = []
    if which in photos:
        names = [which]
    elif place.is_file() and place.suffix.lower() in image_endings():
        own = place.resolve()
        names = [name for name, path in photos.items() if path.resolve() == own]
    elif place.is_dir():
        names = _in_folder(place, photos)
    elif place.is_file():
        names, strays = _listed(place, photos, folder)
    elif any(sign in which for sign in "*?["):
        names = [name for name in photos if fnmatch.fnmatchcase(name, which)]
    else:
        raise BadFile(
            f"{which} is not a file, a folder or a pattern",
            f"pass a list of photos of {folder}, a folder with some of them, or a pattern such as 'pug/*'",
        )
    if not names:
        raise UsageError(f"{which} matches no photo of {folder}", f"use names such as {next(iter(photos))!r}")
    return names, strays


def _in_folder(place: Path, photos: Mapping[str, Path]) -> list[str]:
    right, _ = image_files(place)
    with photo_store() as store:
        hashes = {one for one in store.hashes(PhotoFiles.of(list(right.values()))) if isinstance(one, str)}
        own = store.hashes(PhotoFiles.of(list(photos.values())))
    return [name for name, sha256 in zip(photos, own, strict=True) if sha256 in hashes]


def _listed(place: Path, photos: Mapping[str, Path], folder: Path) -> tuple[list[str], list[str]]:
    lines = [line.strip() for line in decoded(read_bytes(place, _LIST_LIMIT), str(place)).splitlines()]
    name_of = {path.resolve(): name for name, path in photos.items()}
    names, strays = [], []
    for line in filter(None, lines):
        places = [(root / line).resolve() for root in (folder, place.parent, Path())]
        found = [name_of[path] for path in places if path in name_of]
        if line in photos:
            names.append(line)
        elif found:
            names.append(found[0])
        else:
            strays.append(line)
    return list(dict.fromkeys(names)), strays
