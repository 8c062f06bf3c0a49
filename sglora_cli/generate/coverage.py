"""How well the tasks that a pack has seen cover a description, judged by what it is about.

"pug", "a pug" and "a photo of a pug asleep on a sofa" are about the same thing, and "a photo of an excavator" shares a
template with every expert and nothing else. So a sentence is taken apart: the template goes, and beside the whole
phrase its words are looked at alone, for a long sentence dilutes what it is about. The closeness of a phrase is its
cosine to the nearest seen tasks minus its cosine to the nearest words of a background vocabulary, as the cosine alone
says how plain a phrase is. A sentence has the mean of its whole phrase and of its best word.

What counts as far follows from the pack: seen tasks are asked about themselves, each left out.

Shapes: T seen tasks, B background words, C phrases, W width of meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.errors import BadFile
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.tensors import load_sealed, save_sealed
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import UNSEEN
from sglora_cli.system.paths import cache_folder

Encode = Callable[[Sequence[str]], Tensor]
"""Texts -> unit vectors (C, W)."""
FAR = 0.05
"""Of the seen tasks, each left out, so many count as far themselves."""
_LISTED = """\
vehicle, car, aircraft, ship, machine, engine, tool, device, computer, phone, building, bridge, street, city,
furniture, room, kitchen, bathroom, clothing, shoes, food, drink, fruit, meal, person, man, woman, child,
crowd, sport, ball, music, instrument, document, text, letter, chart, map, painting, medical scan, anatomy,
landscape, mountain, river, beach, sky, weather, space, insect, fish, reptile, horse, factory, weapon, toy,
money, book, office, school, idea, science, abstract pattern, material, light, water, fire, road, sign,
container, bottle"""
BACKGROUND = tuple(word.strip() for word in _LISTED.split(","))
"""What sentences may be about, in plain words."""
_WITHIN = 0.5
"""Background words with a cosine above it to a seen task are about what the pack is about, and are left out."""
_NEAREST, _TASKS, _WORDS = 3, 1000, 40
_TEMPLATE = re.compile(
    r"^\s*(?:(?:an?|the)\s+)?(?:[\w-]+\s+)?(?:photo|picture|image|photograph|close-up|shot|snapshot)s?\s+of\s+",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^\s*(?:an?|the|my|some|his|her|our|their)\s+", re.IGNORECASE)
_LITTLE = """\
a an the of in on at by with and or to for from into over under my his her our their its is are was being be
that this which two three some one out up down near beside between before after as about who whose has have
had it"""
_SMALL = frozenset(_LITTLE.split())


@dataclass(frozen=True)
class Coverage:
    """How close a description is to what the pack has seen, and how close seen tasks are to each other."""

    closeness: float
    """Of a sentence as above; of photos the cosine to the nearest expert's."""
    others_T: Tensor = field(repr=False)
    """The same of each seen task, or expert, without itself."""

    @property
    def percentile(self) -> float:
        """Percentage of the seen tasks that are at most as close to the others."""
        return 100 * float((self.others_T <= self.closeness).double().mean())

    @property
    def far(self) -> float:
        """The closeness that 19 of 20 seen tasks exceed; -2 if there is only one."""
        return float(torch.quantile(self.others_T, FAR)) if len(self.others_T) > 1 else -2.0


def phrase_of(sentence: str) -> str:
    """A sentence without its template and article.

    >>> phrase_of("a photo of a pug"), phrase_of("pug"), phrase_of("close-up of the dandelion")
    ('pug', 'pug', 'dandelion')
    """
    return _ARTICLE.sub("", _TEMPLATE.sub("", sentence)).strip() or sentence


def phrases_of(sentence: str) -> list[str]:
    """The whole phrase, then its words but small ones.

    >>> phrases_of("two sparrows on a wire")
    ['two sparrows on a wire', 'sparrows', 'wire']
    """
    phrase = phrase_of(sentence)
    words = [word for word in re.findall(r"[\w'-]+", phrase) if word.lower() not in _SMALL]
    return [phrase, *words[:_WORDS]]


@dataclass(frozen=True)
class SeenTasks:
    """Where the tasks that a pack has seen lie, by their phrases."""

    tasks_TW: Tensor = field(repr=False)
    background_BW: Tensor = field(repr=False)
    others_T: Tensor = field(repr=False)
    """The closeness of each task's sentence to the other tasks."""

    @classmethod
    def of(cls, pack: Pack, encode: Encode) -> SeenTasks:
        """Of a pack, from the user cache if they were asked for before. A pack of very many tasks is thinned out."""
        seen = [task["description"] for task in pack.manifest["tasks"] if task["role"] != UNSEEN]
        if (count := len(seen)) > _TASKS:
            seen = [seen[round(n * (count - 1) / (_TASKS - 1))] for n in range(_TASKS)]
        key = content_hash("coverage 1", pack.fingerprint, seen, BACKGROUND)
        path = cache_folder() / "measured" / "coverage" / f"{key}.safetensors"
        if (known := _kept(path)) is None:
            known = cls.measured(seen, encode)
            tensors = {"tasks": known.tasks_TW, "background": known.background_BW, "others": known.others_T}
            save_sealed(path, tensors, {})
        return known

    @classmethod
    def measured(cls, sentences: Sequence[str], encode: Encode) -> SeenTasks:
        """Of the tasks that these sentences describe."""
        tasks_TW = F.normalize(encode([phrase_of(text) for text in sentences]).double(), dim=1)
        background_BW = F.normalize(encode(BACKGROUND).double(), dim=1)
        background_BW = background_BW[(background_BW @ tasks_TW.T).amax(dim=1) < _WITHIN]
        others = []
        for t, own_CW in enumerate(encoded_phrases(sentences, encode)):
            rest = [row for row in range(len(sentences)) if row != t]
            others.append(closeness(own_CW, tasks_TW[rest], background_BW) if rest else 0.0)
        return cls(tasks_TW, background_BW, torch.tensor(others, dtype=torch.float64))

    def coverage(self, phrases: Sequence[Tensor], weights: Sequence[float]) -> Coverage:
        """Of a task that several sentences describe, by their weights. phrases: (C, W) of each sentence."""
        close = [closeness(own_CW, self.tasks_TW, self.background_BW) for own_CW in phrases]
        mean = sum(weight * one for weight, one in zip(weights, close, strict=True)) / sum(weights)
        return Coverage(mean, self.others_T)


def encoded_phrases(sentences: Sequence[str], encode: Encode) -> list[Tensor]:
    """The phrases of each sentence: (C, W), the whole phrase first. All are encoded in one batch."""
    parts = [phrases_of(text) for text in sentences]
    if not parts:
        return []
    return list(encode([phrase for part in parts for phrase in part]).split([len(part) for part in parts]))


def closeness(phrases_CW: Tensor, tasks_TW: Tensor, background_BW: Tensor) -> float:
    """Of a sentence, whose whole phrase is the first of its phrases: in [-2, 2], negative where it is about something
    else."""
    unit_CW = F.normalize(phrases_CW.double(), dim=1)
    close_C = _nearest(unit_CW @ tasks_TW.double().T)
    if len(background_BW):
        close_C = close_C - _nearest(unit_CW @ background_BW.double().T)
    return float((close_C[0] + close_C.max()) / 2)


def _nearest(cosine_CT: Tensor) -> Tensor:
    """The mean of the largest few of each row: (C,)."""
    return cosine_CT.topk(min(_NEAREST, cosine_CT.shape[1]), dim=1).values.mean(dim=1)


def nearest_others(unit_ED: Tensor) -> Tensor:
    """The similarity of each row to the nearest other row: (E,)."""
    cosine_EE = unit_ED @ unit_ED.T
    return cosine_EE.fill_diagonal_(-2.0).amax(dim=1)


def _kept(path: Path) -> SeenTasks | None:
    """What was measured before; None if it was not, or the file is damaged."""
    try:
        tensors, _ = load_sealed(path) if path.exists() else ({}, {})
    except BadFile:
        return None
    return SeenTasks(tensors["tasks"], tensors["background"], tensors["others"]) if len(tensors) == 3 else None
