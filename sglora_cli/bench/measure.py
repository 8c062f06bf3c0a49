"""Measures adapters on tasks, and computes nothing twice.

Results are stored in the folder `measured` of the user cache. The key of a result is the hash of all its inputs: the
model's fingerprint, device and precision, the layout, the adapter's parameters, stems, texts and their assignment.
The results of all adapters of a method are stored in addition under the hash of the inputs of these adapters, so that
the adapters need not be made again. If any input or VERSION changes, the result is measured again.

If the first two draws of a method give the images of a task the same embeddings, the remaining draws are skipped.

Shapes: S adapters, N images, D embedding, P parameters, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.bench.candidates import Candidate
from sglora_cli.bench.retrieval import hits, right_class
from sglora_cli.bench.rows_file import count_hits, pack_hits
from sglora_cli.data.encode import IMAGES_AT_ONCE, encode_each, encode_images
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files.atomic import drop_drafts
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.text import read_sealed, write_sealed
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.values import Row, TaskTensors
from sglora_cli.system.paths import cache_folder

VERSION = 2
"""Version of the measures. A change invalidates all stored results."""
AGREE = 1e-3
"""Two draws whose embeddings (of length 1) differ by at most this count as equal."""
Cells = dict[tuple[str, int], str]
"""(direction, k) -> packed hits"""
Label = tuple[str, int, int, str]
"""Identifies an adapter of a task: method, sample, seed and sentence, as in `Candidate`."""


@dataclass(frozen=True)
class Part:
    """The adapters of one method for a task, which are made only if they are needed."""

    key: str
    """Hash of all inputs of the adapters except the task's stems and texts, or "" if that is unknown."""
    make: Callable[[], list[Candidate]]
    prepare: Callable[[], object] = list
    """Raises errors of the method before anything is measured."""
    name: str = ""
    """What it measures, for messages."""
    ready: bool = False
    """Whether the adapters exist already, so that `make` only reads them."""


@dataclass(frozen=True)
class Images:
    """How many images need encoding, at least (if all draws agree) and at most, and how many are cached."""

    least: int
    most: int
    known: int
    adapters: int


@dataclass
class Work:
    """Counts of the work done and avoided."""

    encoded: int = 0
    """Images encoded by the backbone, counted once per adapter."""
    saved: int = 0
    """Images that did not need encoding."""


@dataclass(frozen=True)
class Measurer:
    """Measures adapters of one model."""

    model: Model
    precision: str = ""
    """The requested precision. Together with the device it determines the backbone's number format."""
    fresh: bool = False
    """Ignore stored results and measure everything again."""
    count: Work = field(default_factory=Work)
    _on: dict[str, str] = field(default_factory=dict, repr=False)
    """Task key -> hash of the data it is measured on."""
    _rows: dict[Path, list[Row]] = field(default_factory=dict, repr=False)
    """Stored rows of parts that were already read."""

    def on(self, task: UnseenTask) -> str:
        """Return the hash of the data a task is measured on, and of the number format."""
        if task.key not in self._on:
            tensors = task.tensors
            stems = [tensors.stem_N[i : i + IMAGES_AT_ONCE] for i in range(0, len(tensors.stem_N), IMAGES_AT_ONCE)]
            belongs = [list(tensors.image_of), list(tensors.label_of)]
            how = [VERSION, self.model.fingerprint, self.model.device.type, self.precision]
            self._on[task.key] = content_hash(how, belongs, tensors.text_CD, *stems)
        return self._on[task.key]

    def keys(self, task: UnseenTask, candidates: Sequence[Candidate]) -> list[str]:
        """Return the key of each candidate's result on the task. Equal adapters have the same key."""
        on = self.on(task)
        return [content_hash(on, c.layout.to_json(), c.flat_P) for c in candidates]

    def remembers(self, task: UnseenTask, part: Part) -> bool:
        """Return whether the rows of a part are stored, so that its adapters need not be made."""
        return self._remembered(task, part) is not None

    def missing(self, task: UnseenTask, parts: Sequence[Part]) -> Images:
        """Return how many images need encoding."""
        adapters = sum(_adapters(self._remembered(task, part) or []) for part in parts)
        made = [c for part in parts if not self.remembers(task, part) for c in part.make()]
        keys = self.keys(task, made)
        unknown = {key for key in keys if self.fresh or _recall(key) is None}
        named = list(zip(keys, made, strict=True))
        draws = _draws(named)
        spared = unknown - {key for key, c in named if not _is_later(draws, key, c)}
        images = len(task.tensors.stem_N)
        known = images * (adapters + len(made) - len(unknown))
        return Images(images * (len(unknown) - len(spared)), images * len(unknown), known, adapters + len(made))

    def rows_of(self, task: UnseenTask, parts: Sequence[Part]) -> list[Row]:
        """Return the rows of every method. Raises Mismatch if an adapter's embeddings are not finite."""
        known = [self._remembered(task, part) for part in parts]
        made = {n: part.make() for n, part in enumerate(parts) if known[n] is None}
        measured = self._measured(task, [c for candidates in made.values() for c in candidates])
        rows: list[Row] = []
        for n, part in enumerate(parts):
            if n not in made:
                remembered = known[n] or []
                rows += remembered
                self.count.saved += self.images_of(task, part)
                continue
            own = [measured[id(c)] for c in made[n] if id(c) in measured]
            if part.key:
                named = [[*_label(c), _listed(cells)] for c, cells in own]
                write_sealed(self.place(task, part), named)
                self.drop_adapters(task, part)
            rows += [row for c, cells in own for row in _rows(task, _label(c), cells)]
        return rows

    def rows(self, task: UnseenTask, candidates: Sequence[Candidate]) -> list[Row]:
        """Return every candidate's rows, without draws that do not differ. Raises Mismatch like `rows_of`."""
        measured = self._measured(task, candidates)
        kept = (measured[id(c)] for c in candidates if id(c) in measured)
        return [row for c, cells in kept for row in _rows(task, _label(c), cells)]

    def place(self, task: UnseenTask, part: Part) -> Path:
        """Return the file of a part's stored rows."""
        return _path(content_hash("part", self.on(task), part.key), "measured/made")

    def adapters_place(self, task: UnseenTask, part: Part) -> Path:
        """Return the file in which one step leaves the adapters of a part for another step, see `bench/job.py`."""
        rows = self.place(task, part)
        return rows.parents[2] / "adapters" / rows.parent.name / f"{rows.stem}.safetensors"

    def drop_adapters(self, task: UnseenTask, part: Part) -> None:
        """Remove this file, if it exists. Nobody needs it once the rows are stored."""
        path = self.adapters_place(task, part)
        with suppress(OSError):  # a cache that is read-only, or something else in the place of the file
            if path.exists():
                path.unlink()

    def drop(self, task: UnseenTask, part: Part) -> None:
        """Remove the stored rows and adapters of a part, and what a killed process has left of them."""
        for path in (self.place(task, part), self.adapters_place(task, part)):
            drop_drafts(path, locked=True)
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def images_of(self, task: UnseenTask, part: Part) -> int:
        """Return how many images were encoded for the stored rows of a part, counted once per adapter."""
        return len(task.tensors.stem_N) * _adapters(self._remembered(task, part) or [])

    def _remembered(self, task: UnseenTask, part: Part) -> list[Row] | None:
        """Return the stored rows of a part, or None if there are none or the file is damaged."""
        if self.fresh or not part.key:
            return None
        path = self.place(task, part)
        if path in self._rows:
            return self._rows[path]
        rows: list[Row] = []
        try:
            content: Any = read_sealed(path) if path.exists() else None
            for method, sample, seed, sentence, listed in () if content is None else content:
                label = str(method), int(sample), int(seed), str(sentence)
                rows += _rows(task, label, _cells_of(listed))
        except (BadFile, ValueError, TypeError):
            return None
        if content is None:
            return None
        self._rows[path] = rows
        return rows

    def _measured(self, task: UnseenTask, candidates: Sequence[Candidate]) -> dict[int, tuple[Candidate, Cells]]:
        """Measure candidates and return each with its result, by `id`. Skipped draws are missing."""
        keys = self.keys(task, candidates)
        named = list(zip(keys, candidates, strict=True))
        draws = _draws(named)
        agree = {of: None if self.fresh else _recall_agreement(_pair(some)) for of, some in draws.items()}
        known = {} if self.fresh else {key: cells for key in keys if (cells := _recall(key)) is not None}
        unsure = {key for of, some in draws.items() if agree[of] is None for key in some[:2]}
        at_once = {key: c for key, c in named if key in unsure or not (key in known or _is_later(draws, key, c))}
        images_of = self._encoded(task, at_once, known)
        for of, some in draws.items():
            if agree[of] is None:
                one, two = (images_of[key] for key in some[:2])
                agree[of] = bool((one - two).abs().max() <= AGREE)
                write_sealed(_path(_pair(some)), agree[of])
        kept = [(key, c) for key, c in named if not (agree.get(_of(c)) and _is_later(draws, key, c))]
        rest = {key: c for key, c in kept if key not in known}
        self._encoded(task, rest, known)
        images, encoded = len(task.tensors.stem_N), len(at_once) + len(rest)
        self.count.encoded += images * encoded
        self.count.saved += images * (len(candidates) - encoded)
        return {id(c): (c, known[key]) for key, c in kept}

    def _encoded(self, task: UnseenTask, todo: Mapping[str, Candidate], known: dict[str, Cells]) -> dict[str, Tensor]:
        """Return the embeddings (N, D) of the task's images with each adapter, and add their results to `known`."""
        found: dict[str, Tensor] = {}
        for layout in dict.fromkeys(c.layout for c in todo.values()):
            of_layout = {key: c for key, c in todo.items() if c.layout == layout}
            shared = {key: c.flat_P for key, c in of_layout.items() if c.flat_P.ndim == 1}
            for key, c in of_layout.items():
                if key not in shared:
                    found[key] = encode_each(self.model, layout, task.tensors, c.flat_P)
            if shared:
                images_SND = encode_images(self.model, layout, task.tensors, torch.stack(list(shared.values())))
                found |= dict(zip(shared, images_SND, strict=True))
        for key, image_ND in found.items():
            if not bool(torch.isfinite(image_ND).all()):
                raise Mismatch(
                    f"embeddings of method {todo[key].method!r} on {task.name!r} are not finite",
                    "remove it from --baselines or try --precision fp32 (results so far are stored)",
                )
            known[key] = _cells(image_ND, task.tensors)
            write_sealed(_path(key), _listed(known[key]))
        return found


def _adapters(rows: Sequence[Row]) -> int:
    """Return the number of adapters that the rows come from."""
    return len({(row.method, row.sample, row.seed, row.sentence) for row in rows})


def _label(candidate: Candidate) -> Label:
    return candidate.method, candidate.sample, candidate.seed, candidate.sentence


def _of(candidate: Candidate) -> tuple[str, str]:
    """Return the method and sentence that a draw belongs to."""
    return candidate.method, candidate.sentence


def _draws(named: Sequence[tuple[str, Candidate]]) -> dict[tuple[str, str], list[str]]:
    """Return the keys of each method's draws for a sentence, where more than two of them differ."""
    draws: dict[tuple[str, str], dict[str, None]] = {}
    for key, candidate in named:
        draws.setdefault(_of(candidate), {})[key] = None
    return {of: list(some) for of, some in draws.items() if len(some) > 2}


def _is_later(draws: Mapping[tuple[str, str], list[str]], key: str, candidate: Candidate) -> bool:
    """Return whether this draw comes after the first two that differ."""
    return key in draws.get(_of(candidate), ())[2:]


def _pair(draws: Sequence[str]) -> str:
    return content_hash("agree", draws[0], draws[1])


def _recall_agreement(pair: str) -> bool | None:
    try:
        content = read_sealed(_path(pair)) if _path(pair).exists() else None
    except BadFile:
        return None
    return content if isinstance(content, bool) else None


def _cells(image_ND: Tensor, task: TaskTensors) -> Cells:
    text_CD = task.text_CD.float()
    if task.label_of:
        return {("ACC", 1): pack_hits(right_class(image_ND, text_CD, task.label_of).tolist())}
    return {cell: pack_hits(hit_Q.tolist()) for cell, hit_Q in hits(image_ND, text_CD, task.image_of).items()}


def _rows(task: UnseenTask, label: Label, cells: Mapping[tuple[str, int], str]) -> list[Row]:
    method, sample, seed, sentence = label
    rows = []
    for (direction, k), text in cells.items():
        right, asked = count_hits(text)
        value = 100.0 * right / asked
        rows.append(Row(method, task.dataset, task.name, sample, direction, k, value, seed, text, sentence))
    return rows


def _path(key: str, folder: str = "measured") -> Path:
    return cache_folder() / folder / key[:2] / f"{key}.json"


def _recall(key: str) -> Cells | None:
    """Return the stored result of a key, or None if there is none or the file is damaged."""
    try:
        return _cells_of(read_sealed(_path(key))) if _path(key).exists() else None
    except (BadFile, ValueError, TypeError):
        return None


def _listed(cells: Cells) -> list[list[Any]]:
    return [[*cell, text] for cell, text in cells.items()]


def _cells_of(content: Any) -> Cells:
    """Undo `_listed`. Raises ValueError or TypeError."""
    cells = {(str(direction), int(k)): str(text) for direction, k, text in content}
    if not cells or not all(count_hits(text)[1] for text in cells.values()):
        raise ValueError("no hits")
    return cells
