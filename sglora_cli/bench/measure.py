"""Adapters x tasks -> rows, and nothing measured twice.

What was measured lies in the folder `measured` of the user cache, under the hash of everything it follows
from: the model's fingerprint, device and precision, the layout, the adapter's numbers, stems, texts, and which
belongs to which.
Change any of them, or VERSION, and it is measured again.

Shapes: S adapters, N images, D embedding, P numbers, Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.bench.retrieval import hits, right_class
from sglora_cli.bench.rows_file import pack_hits, unpack_hits
from sglora_cli.data.encode import IMAGES_AT_ONCE, encode_each, encode_images
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.text import read_sealed, write_sealed
from sglora_cli.lora.layout import Layout
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.values import Row, TaskTensors
from sglora_cli.system.paths import cache_folder

VERSION = 2
"""Of the measures: another one makes everything measured before unknown."""
Cells = dict[tuple[str, int], str]
"""(direction, k) -> packed hits"""


@dataclass(frozen=True)
class Candidate:
    """An adapter to be measured, and whose it is."""

    method: str
    layout: Layout
    flat_P: Tensor
    """(P,); or (N, P), where each image of the task has an adapter of its own."""
    sample: int = 0
    seed: int = 0
    sentence: str = ""
    """The key of the task whose sentence made it, where it is not that of the measured task."""


@dataclass
class Work:
    """How much work there was."""

    encoded: int = 0
    """Images that went through the backbone, once for each adapter."""
    saved: int = 0
    """Images that did not have to."""


@dataclass(frozen=True)
class Measurer:
    """Measures adapters of one model."""

    model: Model
    precision: str = ""
    """What the user asked for: with the device it says in which numbers the backbone computes."""
    fresh: bool = False
    """Measure everything again."""
    count: Work = field(default_factory=Work)

    def keys(self, task: UnseenTask, candidates: Sequence[Candidate]) -> list[str]:
        """The name of what each candidate measures on the task; equal adapters have one name."""
        tensors = task.tensors
        stems = [tensors.stem_N[i : i + IMAGES_AT_ONCE] for i in range(0, len(tensors.stem_N), IMAGES_AT_ONCE)]
        belongs = [list(tensors.image_of), list(tensors.label_of)]
        how = [VERSION, self.model.fingerprint, self.model.device.type, self.precision]
        on = content_hash(how, belongs, tensors.text_CD, *stems)
        return [content_hash(on, c.layout.to_json(), c.flat_P) for c in candidates]

    def missing(self, task: UnseenTask, candidates: Sequence[Candidate]) -> int:
        """How many images would have to be encoded."""
        unknown = {key for key in self.keys(task, candidates) if self.fresh or _recall(key) is None}
        return len(unknown) * len(task.tensors.stem_N)

    def rows(self, task: UnseenTask, candidates: Sequence[Candidate]) -> list[Row]:
        """Every candidate's rows. Raises Mismatch if an adapter gives embeddings that are not finite."""
        keys = self.keys(task, candidates)
        known = {} if self.fresh else {key: cells for key in keys if (cells := _recall(key)) is not None}
        todo = list({key: c for key, c in zip(keys, candidates, strict=True) if key not in known}.items())
        for layout in dict.fromkeys(c.layout for _, c in todo):
            known |= self._measure(task, layout, [(key, c) for key, c in todo if c.layout == layout])
        images = len(task.tensors.stem_N)
        self.count.encoded += images * len(todo)
        self.count.saved += images * (len(candidates) - len(todo))
        return [row for key, c in zip(keys, candidates, strict=True) for row in _rows(task, c, known[key])]

    def _measure(self, task: UnseenTask, layout: Layout, todo: Sequence[tuple[str, Candidate]]) -> dict[str, Cells]:
        shared = {key: c.flat_P for key, c in todo if c.flat_P.ndim == 1}
        images = {k: encode_each(self.model, layout, task.tensors, c.flat_P) for k, c in todo if k not in shared}
        if shared:
            images_SND = encode_images(self.model, layout, task.tensors, torch.stack(list(shared.values())))
            images |= dict(zip(shared, images_SND, strict=True))
        cells = {}
        for key, candidate in todo:
            image_ND = images[key]
            if not bool(torch.isfinite(image_ND).all()):
                raise Mismatch(
                    f"method {candidate.method!r} gives embeddings that are not finite on {task.name!r}",
                    "leave it out of --baselines, or try --precision fp32; what was measured before is kept",
                )
            cells[key] = _cells(image_ND, task.tensors)
            write_sealed(_path(key), [[*cell, text] for cell, text in cells[key].items()])
        return cells


def _cells(image_ND: Tensor, task: TaskTensors) -> Cells:
    text_CD = task.text_CD.float()
    if task.label_of:
        return {("ACC", 1): pack_hits(right_class(image_ND, text_CD, task.label_of).tolist())}
    return {cell: pack_hits(hit_Q.tolist()) for cell, hit_Q in hits(image_ND, text_CD, task.image_of).items()}


def _rows(task: UnseenTask, candidate: Candidate, cells: Mapping[tuple[str, int], str]) -> list[Row]:
    rows = []
    for (direction, k), text in cells.items():
        hit_Q = unpack_hits(text)
        value = 100.0 * sum(hit_Q) / len(hit_Q)
        own = candidate.method, task.dataset, task.name, candidate.sample
        rows.append(Row(*own, direction, k, value, candidate.seed, text, candidate.sentence))
    return rows


def _path(key: str) -> Path:
    return cache_folder() / "measured" / key[:2] / f"{key}.json"


def _recall(key: str) -> Cells | None:
    """What is known under a key; None for nothing, or for a file that is not what it should be."""
    try:
        content = read_sealed(_path(key)) if _path(key).exists() else []
        cells = {(str(direction), int(k)): str(text) for direction, k, text in content}
        return cells if cells and all(unpack_hits(text) for text in cells.values()) else None
    except (BadFile, ValueError, TypeError):
        return None
