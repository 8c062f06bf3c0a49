"""Measure how well the tasks that a pack has seen cover the subject of a description.

"pug", "a pug" and "a photo of a pug asleep on a sofa" have the same subject. "a photo of an excavator" shares only a
template with the experts. So the template of a sentence is removed, and its words are compared alone as well as the
complete phrase, because a long sentence dilutes its subject. The closeness of a phrase is its cosine to the nearest
seen tasks minus its cosine to the nearest words of a background vocabulary. The cosine alone would mostly measure how
plain the phrase is. The closeness of a sentence is the mean of its complete phrase's and its best phrase's closeness.

The threshold for "far" follows from the pack: each seen task is compared with the other ones. A pack stores the result
in coverage.safetensors: tasks (T, W), background (B, W), others (T,), and the tasks' keys in the header. For a pack
without this file, or with one of other rules, it is measured and stored in the user cache.

Shapes: T seen tasks, B background words, C phrases, W width of meaning.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.errors import BadFile
from sglora_cli.files.hashes import content_hash, data_hash
from sglora_cli.files.tensors import load_sealed, load_tensors, save_sealed, save_tensors
from sglora_cli.lora.layout import checked_flat
from sglora_cli.pack.content.tasks import Task
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import ROLES, UNSEEN
from sglora_cli.system.paths import cache_folder

Encode = Callable[[Sequence[str]], Tensor]
"""Maps C strings to unit vectors (C, W)."""
FAR = 0.05
"""The share of seen tasks that count as far from the other seen tasks."""
_LISTED = """\
vehicle, car, aircraft, ship, machine, engine, tool, device, computer, phone, building, bridge, street, city,
furniture, room, kitchen, bathroom, clothing, shoes, food, drink, fruit, meal, person, man, woman, child,
crowd, sport, ball, music, instrument, document, text, letter, chart, map, painting, medical scan, anatomy,
landscape, mountain, river, beach, sky, weather, space, insect, fish, reptile, horse, factory, weapon, toy,
money, book, office, school, idea, science, abstract pattern, material, light, water, fire, road, sign,
container, bottle"""
BACKGROUND = tuple(word.strip() for word in _LISTED.split(","))
"""Common subjects of sentences."""
_WITHIN = 0.5
"""Background words whose cosine to a seen task is above this are subjects of the pack and are left out."""
_NEAREST, _TASKS, _WORDS = 3, 1000, 40
COVERAGE = "coverage.safetensors"
_NAMES = ("tasks", "background", "others")
_RULES = data_hash(" ".join(("coverage 2", *BACKGROUND)).encode())
"""Hash of the rules. Results of other rules are measured again."""
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
    """How close a description is to the seen tasks, and how close the seen tasks are to each other."""

    closeness: float
    """Closeness of a sentence, as defined above. For photos, the cosine to the photos of the nearest expert."""
    others_T: Tensor = field(repr=False)
    """Closeness of each seen task, or expert, to the other ones."""

    @property
    def percentile(self) -> float:
        """Percentage of the seen tasks that are at most as close to the others."""
        return 100 * float((self.others_T <= self.closeness).double().mean())

    @property
    def far(self) -> float:
        """The closeness that 19 of 20 seen tasks exceed; -2 if there is only one."""
        return float(torch.quantile(self.others_T, FAR)) if len(self.others_T) > 1 else -2.0


def phrase_of(sentence: str) -> str:
    """Remove the template and the article of a sentence.

    >>> phrase_of("a photo of a pug"), phrase_of("pug"), phrase_of("close-up of the dandelion")
    ('pug', 'pug', 'dandelion')
    """
    return _ARTICLE.sub("", _TEMPLATE.sub("", sentence)).strip() or sentence


def phrases_of(sentence: str) -> list[str]:
    """Return the complete phrase, followed by its words without function words.

    >>> phrases_of("two sparrows on a wire")
    ['two sparrows on a wire', 'sparrows', 'wire']
    """
    phrase = phrase_of(sentence)
    words = [word for word in re.findall(r"[\w'-]+", phrase) if word.lower() not in _SMALL]
    return [phrase, *words[:_WORDS]]


@dataclass(frozen=True)
class SeenTasks:
    """Embeddings of the tasks that a pack has seen, by their phrases."""

    keys: tuple[str, ...]
    tasks_TW: Tensor = field(repr=False)
    background_BW: Tensor = field(repr=False)
    others_T: Tensor = field(repr=False)
    """The closeness of each task's sentence to the other tasks."""

    @classmethod
    def of(cls, pack: Pack, encode: Encode) -> SeenTasks:
        """Load the seen tasks of a pack from the pack or the user cache, or measure and cache them."""
        if (known := load_coverage(pack)) is not None:
            return known
        seen = thinned([pack.tasks.of(role) for role in ROLES if role != UNSEEN])
        sentences = [task["description"] for task in seen]
        keys = [task["key"] for task in seen]
        path = cache_folder() / "measured" / "coverage" / f"{content_hash(_RULES, pack.fingerprint, keys, sentences)}"
        path = path.with_suffix(".safetensors")
        if (known := _kept(path)) is None:
            known = cls.measured(keys, sentences, encode)
            save_sealed(path, known._tensors(), known._metadata())
        return known

    @classmethod
    def measured(cls, keys: Sequence[str], sentences: Sequence[str], encode: Encode) -> SeenTasks:
        """Measure the tasks that these sentences describe."""
        tasks_TW, background_BW = _unit(encode([phrase_of(text) for text in sentences])), _unit(encode(BACKGROUND))
        found = cls(tuple(keys), tasks_TW, _elsewhere(background_BW, tasks_TW), torch.empty(0, dtype=torch.float64))
        return replace(found, others_T=found._others(0, sentences, encode))

    def _others(self, first: int, sentences: Sequence[str], encode: Encode) -> Tensor:
        """Return the closeness of tasks `first`, `first + 1`, ... to all other tasks."""
        others = []
        for t, own_CW in enumerate(encoded_phrases(sentences, encode), first):
            rest = [row for row in range(len(self.tasks_TW)) if row != t]
            others.append(closeness(own_CW, self.tasks_TW[rest], self.background_BW) if rest else 0.0)
        return torch.tensor(others, dtype=torch.float64)

    def added(self, keys: Sequence[str], sentences: Sequence[str], encode: Encode) -> SeenTasks:
        """Add tasks. Only the new ones are encoded; the measured closeness of the old ones does not change.

        If there are too many tasks, the old ones that are closest to others are dropped.
        """
        if not sentences:
            return self
        keys, sentences = keys[-_TASKS:], sentences[-_TASKS:]
        kept = torch.argsort(self.others_T, stable=True)[: _TASKS - len(keys)].sort().values
        new_TW = _unit(encode([phrase_of(text) for text in sentences]))
        whole = SeenTasks(
            (*(self.keys[row] for row in kept), *keys),
            torch.cat([self.tasks_TW[kept], new_TW]),
            _elsewhere(self.background_BW, new_TW),
            self.others_T[kept],
        )
        return replace(whole, others_T=torch.cat([whole.others_T, whole._others(len(kept), sentences, encode)]))

    def removed(self, key: str) -> SeenTasks:
        """Remove a task, if it is one of them."""
        kept = [row for row, other in enumerate(self.keys) if other != key]
        return replace(
            self, keys=tuple(self.keys[row] for row in kept), tasks_TW=self.tasks_TW[kept], others_T=self.others_T[kept]
        )

    def save(self, folder: Path) -> None:
        """Write coverage.safetensors into a pack's folder."""
        save_tensors(folder / COVERAGE, self._tensors(), self._metadata())

    def _tensors(self) -> dict[str, Tensor]:
        return {"tasks": self.tasks_TW, "background": self.background_BW, "others": self.others_T}

    def _metadata(self) -> dict[str, Any]:
        return {"kind": "coverage", "rules": _RULES, "tasks": list(self.keys)}

    def coverage(self, phrases: Sequence[Tensor], weights: Sequence[float]) -> Coverage:
        """Return the coverage of a task described by weighted sentences. phrases: (C, W) for each sentence."""
        close = [closeness(own_CW, self.tasks_TW, self.background_BW) for own_CW in phrases]
        mean = sum(weight * one for weight, one in zip(weights, close, strict=True)) / sum(weights)
        return Coverage(mean, self.others_T)


def encoded_phrases(sentences: Sequence[str], encode: Encode) -> list[Tensor]:
    """Encode the phrases of each sentence in one batch: (C, W) per sentence, the complete phrase first."""
    parts = [phrases_of(text) for text in sentences]
    if not parts:
        return []
    return list(encode([phrase for part in parts for phrase in part]).split([len(part) for part in parts]))


def closeness(phrases_CW: Tensor, tasks_TW: Tensor, background_BW: Tensor) -> float:
    """Return the closeness of a sentence, in [-2, 2]. It is negative if the sentence has another subject.

    phrases_CW: embeddings of its phrases, the complete phrase first.
    """
    unit_CW = F.normalize(phrases_CW.double(), dim=1)
    close_C = _nearest(unit_CW @ tasks_TW.double().T)
    if len(background_BW):
        close_C = close_C - _nearest(unit_CW @ background_BW.double().T)
    return float((close_C[0] + close_C.max()) / 2)


def _nearest(cosine_CT: Tensor) -> Tensor:
    """Return the mean of the few largest values of each row: (C,)."""
    return cosine_CT.topk(min(_NEAREST, cosine_CT.shape[1]), dim=1).values.mean(dim=1)


def thinned(roles: Sequence[Sequence[Task]]) -> list[Task]:
    """Return the tasks of some roles. If there are too many, a selection spread evenly over them."""
    starts = [0, *accumulate(map(len, roles))]
    count = starts[-1]
    rows = range(count) if count <= _TASKS else [round(n * (count - 1) / (_TASKS - 1)) for n in range(_TASKS)]
    of = [bisect_right(starts, row) - 1 for row in rows]
    return [roles[role][row - starts[role]] for role, row in zip(of, rows, strict=True)]


def load_coverage(pack: Pack) -> SeenTasks | None:
    """Load the seen tasks from a pack; None if it has none of the current rules.

    Raises BadFile or Mismatch for a damaged file.
    """
    if COVERAGE not in pack.manifest["files"]:
        return None
    path = pack.folder / COVERAGE
    tensors, metadata = load_tensors(path)
    if metadata.get("rules") != _RULES:
        return None
    keys, count = metadata.get("tasks"), len(pack.tasks)
    if not isinstance(keys, list) or not _fit(tensors, len(keys)) or not 0 < len(keys) <= count:
        raise BadFile(f"{path} does not fit the pack's tasks", "build or fetch the pack again")
    numbers = [checked_flat(tensors[name].double(), str(path)) for name in _NAMES]
    return SeenTasks(tuple(map(str, keys)), numbers[0].float(), numbers[1].float(), numbers[2])


def _fit(tensors: Mapping[str, Tensor], count: int) -> bool:
    if set(tensors) != set(_NAMES):
        return False
    tasks_TW, background_BW, others_T = (tensors[name] for name in _NAMES)
    fits = tasks_TW.ndim == background_BW.ndim == 2 and tasks_TW.shape[1] == background_BW.shape[1]
    return fits and len(tasks_TW) == count and others_T.shape == (count,)


def _unit(vectors_CW: Tensor) -> Tensor:
    return F.normalize(vectors_CW.double(), dim=1).float()


def _elsewhere(background_BW: Tensor, tasks_TW: Tensor) -> Tensor:
    """Return the background words that are not subjects of the tasks."""
    return background_BW[(background_BW.double() @ tasks_TW.double().T).amax(dim=1) < _WITHIN]


def _kept(path: Path) -> SeenTasks | None:
    """Return cached results; None if there are none or the file is damaged."""
    try:
        tensors, metadata = load_sealed(path)
    except BadFile:
        return None
    return SeenTasks(tuple(metadata["tasks"]), tensors["tasks"], tensors["background"], tensors["others"])
