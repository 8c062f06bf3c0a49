"""Classify photos by names: each photo gets the name whose prompts are most similar to it.

This is zero-shot classification as in CLIP (Radford et al. 2021, 3.1.2): a softmax over the names of the backbone's
scale times the cosine similarities. Shapes: N photos, C names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.data.description import cleaned_sentence, sentence_lines
from sglora_cli.data.encode import class_heads
from sglora_cli.errors import UsageError
from sglora_cli.files.names import file_stem
from sglora_cli.search.encoder import DECIMALS, Encoder, cosines
from sglora_cli.system.display import Share, counted, html_table, plain

_SHOWN = 10
"""The most photos in a notebook's table."""


@dataclass(frozen=True)
class Classes:
    """Photos and their assigned names."""

    encoder: Encoder
    names: Sequence[str]
    photos: Sequence[str]
    """Names of the photos that can be read."""
    paths: Mapping[str, Path]
    chosen_N: Tensor = field(repr=False)
    """The index of each photo's name in `names`."""
    probability_N: Tensor = field(repr=False)
    """The probability of that name."""
    without_N: Tensor = field(repr=False)
    """The index of each photo's name without the adapter."""
    skipped: Sequence[str]
    """Why other photos are skipped, in sentences."""
    computed: int
    """The number of photos that were decoded; the others were cached."""

    def __repr__(self) -> str:
        return f"Classes({counted(len(self.photos), 'photo')}: {plain(self._line)}; {self.encoder.line})"

    def _repr_html_(self) -> str:
        facts = {"photos": self._line, "skipped": "; ".join(self.skipped) or None, **self.encoder.facts}
        sides = zip(self.photos, self.chosen_N.tolist(), self.probability_N.tolist(), strict=True)
        rows = [(photo, self.names[row], Share(share)) for photo, row, share in islice(sides, _SHOWN)]
        return html_table(
            f"{counted(len(self.photos), 'photo')} by name", facts, ("photo", "name", "probability"), rows
        )

    @property
    def counts(self) -> dict[str, int]:
        """The number of photos with each name."""
        got = Counter(self.chosen_N.tolist())
        return {name: got[row] for row, name in enumerate(self.names)}

    @property
    def _line(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())

    def of(self, name: str) -> list[int]:
        """Return the rows of photos with this name, the most probable first."""
        row = list(self.names).index(name)
        return sorted(
            (n for n, chosen in enumerate(self.chosen_N.tolist()) if chosen == row),
            key=lambda n: -float(self.probability_N[n]),
        )

    @property
    def empty(self) -> list[str]:
        """Names that were not assigned to any photo."""
        return [name for name, count in self.counts.items() if not count]

    @property
    def agreement(self) -> tuple[int, int, int] | None:
        """Agreement with folders that have one of the names: the number of photos in them, the number that got their
        folder's name, and the number without the adapter. None if there are no such photos."""
        row_of = {_plain(name): row for row, name in enumerate(self.names)}
        folders = [row_of.get(_plain(self.paths[photo].parent.name), -1) for photo in self.photos]
        told = torch.tensor(folders)
        known = int((told >= 0).sum())
        right, before = (int((told == side_N).sum()) for side_N in (self.chosen_N, self.without_N))
        return (known, right, before) if known else None

    def copies(self) -> list[tuple[str, Path]]:
        """Return the relative path of each copy, with one folder per name, and its photo."""
        return [
            (f"{file_stem(self.names[row])}/{self.paths[photo].name}", self.paths[photo])
            for photo, row in zip(self.photos, self.chosen_N.tolist(), strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        results = []
        for n, photo in enumerate(self.photos):
            name, without = (self.names[int(side_N[n])] for side_N in (self.chosen_N, self.without_N))
            found: dict[str, Any] = {"photo": photo, "path": str(self.paths[photo]), "name": name}
            found["probability"] = round(float(self.probability_N[n]), DECIMALS)
            results.append(found | ({"name_without": without} if self.encoder.adapter else {}))
        known, right, before = self.agreement or (0, 0, 0)
        return {
            "names": self.counts,
            "adapter": self.encoder.file or None,
            "backbone": self.encoder.backbone,
            "fingerprint": self.encoder.model.fingerprint,
            "photos": len(self.photos),
            "computed": self.computed,
            "folders": {"photos": known, "agree": right, "agree_without": before},
            "skipped": list(self.skipped),
            "results": results,
        }


def class_names(names: Sequence[str], file: Path | None) -> list[str]:
    """Combine names from the command line and a file with one name per line. Raises UsageError for fewer than two."""
    lines = [*names, *(sentence_lines(file) if file else [])]
    if not all(line.strip() for line in lines):
        raise UsageError("a name is empty", "pass --name pug --name beagle, or --names FILE")
    distinct = list(dict.fromkeys(cleaned_sentence(name) for name in lines))
    if len(distinct) < 2:
        got = f"got only {distinct[0]!r}" if distinct else "got none"
        raise UsageError(f"at least two names are needed, {got}", "pass --name pug --name beagle, or --names FILE")
    return distinct


def classified(encoder: Encoder, photos: Mapping[str, Path], names: Sequence[str], prompts: Sequence[str]) -> Classes:
    """Classify photos by names. prompts: strings with {class}; the embeddings of several prompts are averaged.

    Raises BadFile if no photo can be read, Mismatch for a prompt that is too long.
    """
    head_CD = class_heads(encoder.model, names, prompts).cpu()
    seen = encoder.photos(photos)
    without_NC, score_NC = (cosines(side_ND, head_CD) for side_ND in (seen.plain_ND, seen.adapted_ND))
    probability_N, chosen_N = torch.softmax(encoder.model.scale * score_NC, dim=1).max(dim=1)
    paths = {name: photos[name] for name in seen.names}
    return Classes(
        encoder,
        names,
        seen.names,
        paths,
        chosen_N,
        probability_N,
        without_NC.argmax(dim=1),
        seen.skipped,
        seen.computed,
    )


def _plain(name: str) -> str:
    """Remove case, spaces and punctuation of a name, so that the folder `Yorkshire_Terrier` matches its name."""
    return re.sub(r"[\W_]+", "", name).casefold()
