"""Compare rankings of photos for sentences, or of sentences for photos, without and with an adapter.

Shapes: N photos, C sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.data.description import cleaned_sentence, sentence_lines
from sglora_cli.errors import BadFile, UsageError
from sglora_cli.search.encoder import DECIMALS, Encoder, cosines
from sglora_cli.search.ranking import Ranking


@dataclass(frozen=True)
class Comparison:
    """Rankings without and with an adapter."""

    adapter: str
    metadata: Mapping[str, Any]
    backbone: str
    fingerprint: str
    ranked: str
    """"images" for one ranking of images per sentence, "sentences" for one ranking of sentences per image."""
    rankings: tuple[Ranking, ...]
    photos: Mapping[str, Path]
    """All images that were read, by their names in the rankings."""
    skipped: tuple[str, ...]
    """Why other images are skipped, in sentences."""


def sentences(texts: Sequence[str], file: Path | None, metadata: Mapping[str, Any]) -> list[str]:
    """Combine sentences from the command line and from a file with one per line, or use the adapter's description."""
    lines = list(texts)
    if file is not None:
        lines += sentence_lines(file)
        if not lines:
            raise BadFile(f"{file} has no sentences", "write one sentence per line")
    if not lines:
        if not isinstance(metadata.get("description"), str):
            raise UsageError("the adapter has no description", 'pass --text "a photo of a ..."')
        lines = [metadata["description"]]
    return list(dict.fromkeys(cleaned_sentence(text) for text in lines))


def compared(
    encoder: Encoder, photos: Mapping[str, Path], ranked: str, texts: Sequence[str] = (), file: Path | None = None
) -> Comparison:
    """Compare rankings without and with the encoder's adapter: of photos for each sentence, or (`ranked` "sentences")
    of sentences for each photo. Raises UsageError, BadFile, Mismatch."""
    wanted = sentences(texts, file, encoder.about)
    text_CD = encoder.texts(wanted)
    seen = encoder.photos(photos)
    before_NC, after_NC = (cosines(side_ND, text_CD) for side_ND in (seen.plain_ND, seen.adapted_ND))
    if ranked == "images":
        queries, items, pairs = wanted, seen.names, zip(before_NC.T.contiguous(), after_NC.T.contiguous(), strict=True)
    else:
        queries, items, pairs = list(seen.names), tuple(wanted), zip(before_NC, after_NC, strict=True)
    rankings = tuple(Ranking(query, items, *pair) for query, pair in zip(queries, pairs, strict=True))
    read = {name: photos[name] for name in seen.names}
    fingerprint = encoder.model.fingerprint
    return Comparison(encoder.file, encoder.about, encoder.backbone, fingerprint, ranked, rankings, read, seen.skipped)


def to_json(comparison: Comparison, count: int) -> dict[str, Any]:
    """Return the first `count` items of every ranking as JSON values."""
    return {
        "adapter": comparison.adapter,
        "description": comparison.metadata.get("description"),
        "backbone": comparison.backbone,
        "fingerprint": comparison.fingerprint,
        "ranked": comparison.ranked,
        "skipped": list(comparison.skipped),
        "rankings": [_ranking_facts(ranking, count) for ranking in comparison.rankings],
    }


def _ranking_facts(ranking: Ranking, count: int) -> dict[str, Any]:
    items = [
        {
            "item": ranking.items[i],
            "rank_before": int(ranking.rank_before_I[i]),
            "rank_after": int(ranking.rank_after_I[i]),
            "score_before": round(float(ranking.before_I[i]), DECIMALS),
            "score_after": round(float(ranking.after_I[i]), DECIMALS),
        }
        for i in ranking.top(count)
    ]
    change = vars(ranking.change(count))
    return {"query": ranking.query, "of": len(ranking.items), "change": dict(change), "items": items}
