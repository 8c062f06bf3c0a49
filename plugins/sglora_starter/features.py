"""Features of the corpus from the frozen encoders, computed once: stem features of every view, and sentence vectors.

Shapes: N photos, F features, C different texts, W = 384 of a sentence vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import torch
from torch import Tensor

from sglora_cli.api import progress, read_image

from .corpus import Photo, add_colours, read, texts_of, view
from .stem import FEATURES, GRID, Stem, pixels
from .text import SentenceEncoder


@dataclass
class Views:
    """Stem features of one view of some photos. features_N has a row for each of `keys`."""

    keys: list[str]
    features_NF77: Tensor

    @cached_property
    def row(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys)}


@dataclass
class Corpus:
    """Photos with all frozen features. C different texts."""

    photos: list[Photo]
    views: list[Views]
    texts: dict[str, int]
    sentences_CW: Tensor

    def features(self, rows: Sequence[int], numbers: Sequence[int]) -> Tensor:
        """Return (N, F, 7, 7) float32 of photos in the given views, or of the complete photo as a fallback."""
        found_NF77 = torch.empty(len(rows), FEATURES, GRID, GRID)
        for n, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            key = self.photos[row].key
            views = self.views[number] if key in self.views[number].row else self.views[0]
            found_NF77[n] = views.features_NF77[views.row[key]]
        return found_NF77


def prepare(data: Path, work: Path, count: int) -> Corpus:
    """Read the data, run the frozen encoders once, and cache their results in `work`. count: views per photo."""
    work.mkdir(parents=True, exist_ok=True)
    photos = read(data)
    for photo in progress([p for p in photos if not p.captions], "colours"):
        add_colours(photo, read_image(photo.path))
    cropped = [p for p in photos if p.source == "flickr8k"]
    views = [stem_views(photos if n == 0 else cropped, n, work / f"view-{n}.pt") for n in range(count)]
    texts = texts_of(photos)
    click.echo(f"{len(photos)} photos, {len(texts)} different texts", err=True)
    return Corpus(photos, views, {t: i for i, t in enumerate(texts)}, sentence_vectors(texts, work / "texts.pt"))


def stem_views(photos: Sequence[Photo], number: int, kept: Path) -> Views:
    """Return features of one view of each photo, using the cache file `kept` if it matches."""
    keys = [photo.key for photo in photos]
    if kept.exists() and (found := Views(**torch.load(kept, weights_only=True, mmap=True))).keys == keys:
        return found
    features_NF77 = torch.empty(len(photos), FEATURES, GRID, GRID, dtype=torch.half)
    stem = Stem.pretrained()

    def load(photo: Photo) -> Tensor:
        return pixels(view(photo, read_image(photo.path), number))

    with ThreadPoolExecutor(2) as pool, torch.inference_mode():
        for start in progress(list(range(0, len(photos), 32)), f"stem features, view {number}"):
            batch_N3HW = torch.stack(list(pool.map(load, photos[start : start + 32])))
            features_NF77[start : start + 32] = stem(batch_N3HW).half()
    torch.save({"keys": keys, "features_NF77": features_NF77}, kept)
    return Views(keys, features_NF77)


def sentence_vectors(texts: Sequence[str], kept: Path) -> Tensor:
    """Return the sentence vectors (C, W) of the frozen encoder, using the cache file `kept` if it matches."""
    if kept.exists() and (found := torch.load(kept, weights_only=True))["texts"] == list(texts):
        known_CW: Tensor = found["sentences_CW"]
        return known_CW
    sentences_CW = SentenceEncoder.pretrained()(texts)
    torch.save({"texts": list(texts), "sentences_CW": sentences_CW}, kept)
    return sentences_CW
