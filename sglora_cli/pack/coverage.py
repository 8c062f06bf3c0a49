"""How well the tasks that a pack has seen cover a description, judged by what it is about.

"pug", "a pug" and "a photo of a pug asleep on a sofa" are about the same thing, and "a photo of an excavator" shares a
template with every expert and nothing else. So a sentence is taken apart: the template goes, and beside the whole
phrase its words are looked at alone, for a long sentence dilutes what it is about. The closeness of a phrase is its
cosine to the nearest seen tasks minus its cosine to the nearest words of a background vocabulary, as the cosine alone
says how plain a phrase is. A sentence has the mean of its whole phrase and of its best word.

What counts as far follows from the pack: seen tasks are asked about themselves, each left out. A pack keeps that in
coverage.safetensors: tasks (T, W), background (B, W), others (T,), and the tasks' keys in its header. For a pack that
has none, or one by other rules, it is measured and kept in the user cache.

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
COVERAGE = "coverage.safetensors"
_NAMES = ("tasks", "background", "others")
_RULES = data_hash(" ".join(("coverage 2", *BACKGROUND)).encode())
"""What was measured by other rules is measured again."""
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

    keys: tuple[str, ...]
    tasks_TW: Tensor = field(repr=False)
    background_BW: Tensor = field(repr=False)
    others_T: Tensor = field(repr=False)
    """The closeness of each task's sentence to the other tasks."""

    @classmethod
    def of(cls, pack: Pack, encode: Encode) -> SeenTasks:
        """Of a pack, as it keeps them, or from the user cache if they were asked for before."""
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
        """Of the tasks that these sentences describe."""
        tasks_TW, background_BW = _unit(encode([phrase_of(text) for text in sentences])), _unit(encode(BACKGROUND))
        found = cls(tuple(keys), tasks_TW, _elsewhere(background_BW, tasks_TW), torch.empty(0, dtype=torch.float64))
        return replace(found, others_T=found._others(0, sentences, encode))

    def _others(self, first: int, sentences: Sequence[str], encode: Encode) -> Tensor:
        """The closeness of tasks `first`, `first + 1`, ... to all other tasks."""
        others = []
        for t, own_CW in enumerate(encoded_phrases(sentences, encode), first):
            rest = [row for row in range(len(self.tasks_TW)) if row != t]
            others.append(closeness(own_CW, self.tasks_TW[rest], self.background_BW) if rest else 0.0)
        return torch.tensor(others, dtype=torch.float64)

    def added(self, keys: Sequence[str], sentences: Sequence[str], encode: Encode) -> SeenTasks:
        """With more tasks. Only theirs are encoded: how close the old ones are to the others stays as it was measured.

        Where there would be too many, those go that say least: the old ones that are closest to others.
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
        """Without a task, if it is one of them."""
        kept = [row for row, other in enumerate(self.keys) if other != key]
        return replace(
            self, keys=tuple(self.keys[row] for row in kept), tasks_TW=self.tasks_TW[kept], others_T=self.others_T[kept]
        )

    def save(self, folder: Path) -> None:
        """Write the file of a pack."""
        save_tensors(folder / COVERAGE, self._tensors(), self._metadata())

    def _tensors(self) -> dict[str, Tensor]:
        return {"tasks": self.tasks_TW, "background": self.background_BW, "others": self.others_T}

    def _metadata(self) -> dict[str, Any]:
        return {"kind": "coverage", "rules": _RULES, "tasks": list(self.keys)}

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


def thinned(roles: Sequence[Sequence[Task]]) -> list[Task]:
    """The tasks of some roles; of very many, some that are spread evenly over them."""
    starts = [0, *accumulate(map(len, roles))]
    count = starts[-1]
    rows = range(count) if count <= _TASKS else [round(n * (count - 1) / (_TASKS - 1)) for n in range(_TASKS)]
    of = [bisect_right(starts, row) - 1 for row in rows]
    return [roles[role][row - starts[role]] for role, row in zip(of, rows, strict=True)]


def load_coverage(pack: Pack) -> SeenTasks | None:
    """What a pack keeps; None if it keeps nothing, or by other rules. Raises BadFile, Mismatch for a damaged file."""
    if COVERAGE not in pack.manifest["files"]:
        return None
    path = pack.folder / COVERAGE
    tensors, metadata = load_tensors(path)
    if metadata.get("rules") != _RULES:
        return None
    keys, count = metadata.get("tasks"), len(pack.tasks)
    if not isinstance(keys, list) or not _fit(tensors, len(keys)) or not 0 < len(keys) <= count:
        raise BadFile(f"{path} does not say where the pack's tasks lie", "build or fetch the pack again")
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
    """The words that are about something else than the tasks."""
    return background_BW[(background_BW.double() @ tasks_TW.double().T).amax(dim=1) < _WITHIN]


def _kept(path: Path) -> SeenTasks | None:
    """What was measured before; None if it was not, or the file is damaged."""
    try:
        tensors, metadata = load_sealed(path)
    except BadFile:
        return None
    return SeenTasks(tuple(metadata["tasks"]), tensors["tasks"], tensors["background"], tensors["others"])
