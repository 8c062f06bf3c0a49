"""What an adapter does: how a folder's images rank for a sentence, or sentences for an image, without and with it.

Shapes: N images, C sentences, I items of one ranking, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.adapter.file import AdapterFile, load_adapter
from sglora_cli.adapter.read import provenance, read_adapter, recognise
from sglora_cli.config import RuntimeConfig
from sglora_cli.data.description import cleaned_sentence, sentence_lines
from sglora_cli.data.encode import check_text, encode_photos
from sglora_cli.errors import BadFile, Mismatch, UsageError
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.system import settings

_TEXTS = 256
_DECIMALS = 6  # what differs by less is rounding: equal images in different batches shall tie


@dataclass(frozen=True)
class Change:
    """How different two rankings are."""

    score: float
    """Mean absolute change of a score."""
    moved: int
    """Items of the top whose rank is another one than before."""
    entered: int
    """Items of the top that were not there before."""
    top: int
    """How many items the top has."""
    correlation: float | None
    """Spearman's rank correlation of all items; None where all scores of one side are equal."""


@dataclass(frozen=True)
class Ranking:
    """The items of one query, with their cosine similarities (I,) without and with the adapter."""

    query: str
    items: tuple[str, ...]
    before_I: Tensor
    after_I: Tensor

    @cached_property
    def rank_before_I(self) -> Tensor:
        return ranks(self.before_I)

    @cached_property
    def rank_after_I(self) -> Tensor:
        return ranks(self.after_I)

    def top(self, count: int, before: bool = False) -> list[int]:
        """The first rows, best first, with the adapter or (`before`) without it; ties keep their order."""
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


@dataclass(frozen=True)
class Comparison:
    """An adapter that was tried."""

    adapter: str
    metadata: Mapping[str, Any]
    backbone: str
    fingerprint: str
    ranked: str
    """What is ranked: "images", a ranking a sentence, or "sentences", a ranking an image."""
    rankings: tuple[Ranking, ...]
    photos: Mapping[str, Path]
    """Every image that was read, by its name in the rankings."""
    skipped: tuple[str, ...]
    """Why images were left out, in sentences."""


def ranks(scores_I: Tensor) -> Tensor:
    """Rank, from 1, of every item: one more than the items with a higher score, so that equal scores share a rank.

    >>> ranks(torch.tensor([0.1, 0.5, 0.5, 0.9]))
    tensor([4, 2, 2, 1])
    """
    return 1 + len(scores_I) - torch.searchsorted(scores_I.sort().values, scores_I, right=True)


def correlation(before_I: Tensor, after_I: Tensor) -> float | None:
    """Spearman's rank correlation; items that tie get the mean of their ranks. None where one side is all ties.

    >>> correlation(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([3.0, 2.0, 1.0]))
    -1.0
    """
    centred = []
    for scores_I in (before_I, after_I):
        ordered_I = scores_I.sort().values
        first_I, last_I = (torch.searchsorted(ordered_I, scores_I, right=side) for side in (False, True))
        place_I = (first_I + last_I).double()  # twice the mean place among equals
        centred.append(place_I - place_I.mean())
    spread = float(centred[0].square().sum() * centred[1].square().sum()) ** 0.5
    return float((centred[0] * centred[1]).sum()) / spread if spread > 0 else None


def opened(host: Host, path: Path, backbone: str, runtime: RuntimeConfig) -> tuple[AdapterFile, Model, str]:
    """An adapter in any format, the model it is for, and the name of that. Raises Mismatch where they do not fit.

    A file of another program does not say its backbone: the settings' one is taken then.
    """
    found = recognise(path)
    ours = found.kind == "safetensors"
    adapter = load_adapter(path) if ours else None
    name = backbone or provenance(found).get("backbone") or ("" if ours else settings.load().backbone)
    if not isinstance(name, str) or not name:
        raise UsageError(f"{path} does not say for which backbone it is", "pass --backbone NAME")
    model = host.backbones[name].load(settings.runtime(runtime, name))
    if adapter is None:
        foreign = read_adapter(found, model, backbone=name)
        layout = foreign.layout()
        adapter = AdapterFile(layout, foreign.fitted(layout)[0], {**foreign.metadata, "fingerprint": model.fingerprint})
    adapter.check_model(model)
    return adapter, model, name


def sentences(texts: Sequence[str], file: Path | None, metadata: Mapping[str, Any]) -> list[str]:
    """The sentences of the command line and of a file, one a line; without any, the adapter's own description."""
    lines = list(texts)
    if file is not None:
        lines += sentence_lines(file)
        if not lines:
            raise BadFile(f"{file} has no sentence", "write one a line")
    if not lines:
        if not isinstance(metadata.get("description"), str):
            raise UsageError("the adapter does not say what it is for", 'pass --text "a photo of a ..."')
        lines = [metadata["description"]]
    return list(dict.fromkeys(cleaned_sentence(text) for text in lines))


def compare(
    model: Model, adapter: AdapterFile, photos: Mapping[str, Path], texts: Sequence[str]
) -> tuple[Tensor, Tensor, list[str], list[str]]:
    """Cosine similarities (N, C) without and with the adapter, the names of the N images, and why others are not there.

    Raises BadFile if no image can be read, Mismatch for a score that is not finite.
    """
    for text in texts:
        check_text(model, text)
    text_CD = torch.cat([model.encode_text(texts[i : i + _TEXTS]).cpu() for i in range(0, len(texts), _TEXTS)])
    before_ND, after_ND, kept, skipped = encode_photos(model, photos, adapter.layout, adapter.flat_P)
    before_NC, after_NC = _scores(before_ND, text_CD), _scores(after_ND, text_CD)
    return before_NC, after_NC, kept, skipped


def _scores(image_ND: Tensor, text_CD: Tensor) -> Tensor:
    scores_NC = torch.round(image_ND @ text_CD.float().T, decimals=_DECIMALS)
    if not bool(torch.isfinite(scores_NC).all()):
        raise Mismatch("a score is not finite", "try --precision fp32")
    return scores_NC


def run(
    host: Host,
    path: Path,
    photos: Mapping[str, Path],
    ranked: str,
    texts: Sequence[str] = (),
    file: Path | None = None,
    backbone: str = "",
    runtime: RuntimeConfig | None = None,
) -> Comparison:
    """Try an adapter: rank the images for each sentence, or (`ranked` "sentences") the sentences for each image.

    Raises UsageError, UnknownName, BadFile, Mismatch.
    """
    adapter, model, name = opened(host, path, backbone, runtime or RuntimeConfig())
    wanted = sentences(texts, file, adapter.metadata)
    before_NC, after_NC, kept, skipped = compare(model, adapter, photos, wanted)
    if ranked == "images":
        queries, items, pairs = wanted, kept, zip(before_NC.T.contiguous(), after_NC.T.contiguous(), strict=True)
    else:
        queries, items, pairs = kept, wanted, zip(before_NC, after_NC, strict=True)
    rankings = [Ranking(query, tuple(items), *pair) for query, pair in zip(queries, pairs, strict=True)]
    read = {name: photos[name] for name in kept}
    return Comparison(
        path.name, adapter.metadata, name, model.fingerprint, ranked, tuple(rankings), read, tuple(skipped)
    )


def to_json(comparison: Comparison, count: int) -> dict[str, Any]:
    """Everything about the first `count` items of every ranking, for programs."""
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
            "score_before": round(float(ranking.before_I[i]), _DECIMALS),
            "score_after": round(float(ranking.after_I[i]), _DECIMALS),
        }
        for i in ranking.top(count)
    ]
    change = vars(ranking.change(count))
    return {"query": ranking.query, "of": len(ranking.items), "change": dict(change), "items": items}
