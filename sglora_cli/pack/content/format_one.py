"""Packs of format 1, which remain readable but are no longer written: one file per expert, all tasks in the manifest.

pack.json                        with a list "tasks"
experts/<task>.safetensors       mu, var: (P,) float32
index.safetensors                index (E, D), meaning (E, W), and optionally visual (E, D)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.errors import BadFile
from sglora_cli.files.tensors import load_tensors, read_metadata, tensor_names
from sglora_cli.files.untrusted import inside
from sglora_cli.lora.layout import Layout, checked_flat
from sglora_cli.pack.content.manifest import MANIFEST
from sglora_cli.pack.content.moments import MOMENTS, load_moments
from sglora_cli.pack.content.names import file_name
from sglora_cli.pack.content.tasks import Tasks, tasks_of
from sglora_cli.plugin.values import EXPERT, UNSEEN, Moments

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.lora.gauge import Gauge

_INDEX = "index.safetensors"
_CHUNK = 256
"""The number of experts to read at once when all are read."""


def _old_file_name(key: str) -> str:
    """Return the file of a task in a pack of an older program, where two tasks could share one file."""
    return re.sub(r"[^a-z0-9_.]+", "-", key.lower().replace("/", "--")).strip("-.") + ".safetensors"


class FormatOne:
    """The content of a pack of format 1."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], layout: Layout) -> None:
        self._folder, self._listed = folder, manifest["files"]
        self.tasks: Tasks = tasks_of(folder, manifest)
        files = {task["key"]: self._file_of("experts", task["key"]) for task in self.tasks.of(EXPERT)}
        _check_apart(folder / MANIFEST, files)
        _check_apart(folder / MANIFEST, {t["key"]: self.evaluation_file(t["key"]) for t in self.tasks.of(UNSEEN)})
        self.experts = _ExpertFiles(folder, files, layout)

    def _file_of(self, folder: str, key: str) -> str:
        name, old = f"{folder}/{file_name(key)}", f"{folder}/{_old_file_name(key)}"
        return old if old in self._listed and name not in self._listed else name

    def evaluation_file(self, key: str) -> str:
        """Return the path of an unseen task's evaluation data, relative to the pack's folder."""
        return self._file_of("evaluation", key)

    @cached_property
    def index_ED(self) -> Tensor:
        return self._index("index")

    @cached_property
    def meaning_EW(self) -> Tensor:
        return self._index("meaning")

    @property
    def has_visual(self) -> bool:
        return "visual" in tensor_names(self._folder / _INDEX)[0]

    @cached_property
    def visual_ED(self) -> Tensor:
        return self._index("visual")

    nearest_E: Tensor | None = None
    """Packs of this format do not store it."""

    def gauge(self) -> Gauge:
        from sglora_cli.lora.gauge import gauge_of

        return gauge_of(self.experts.layout, lambda: (mean_NP for mean_NP, _ in self.experts.chunks()))

    def states(self, row: int) -> Any:
        """Return the number of states that an expert is the mean of, if its file records it."""
        return read_metadata(self._folder / self.experts.file(row)).get("states")

    def check(self, changed: Iterable[str] | None = None) -> None:
        """Read and check experts and index. Raises BadFile or Mismatch if they are invalid."""
        for _ in self.experts.chunks():
            pass
        _ = self.index_ED, self.meaning_EW

    def _index(self, name: str) -> Tensor:
        path = self._folder / _INDEX
        index = load_tensors(path, (name,))[0][name].float()
        if index.ndim != 2 or len(index) != len(self.experts.names):
            raise BadFile(f"{path} does not hold one row for each of {len(self.experts.names)} experts")
        return checked_flat(index, str(path))


class _ExpertFiles:
    """One file per expert. Each file is read when it is first needed and then cached in memory."""

    def __init__(self, folder: Path, files: Mapping[str, str], layout: Layout) -> None:
        self._folder, self._files, self.layout = folder, files, layout
        self.names: Sequence[str] = tuple(files)
        self._read = lru_cache(maxsize=None)(self._load)

    def file(self, row: int) -> str:
        return self._files[self.names[row]]

    def _load(self, row: int) -> tuple[Tensor, Tensor]:
        path = inside(self._folder, self.file(row))
        tensors, _ = load_tensors(path, ("mu", "var"))
        mean, variance = (_numbers(tensors[name], path, self.layout) for name in ("mu", "var"))
        if bool((variance < 0).any()):
            raise BadFile(f"{path} has a negative variance")
        return mean, variance

    @cached_property
    def moments(self) -> Moments | None:
        """The moments, or None if the pack has none. Raises BadFile or Mismatch for an invalid file."""
        return load_moments(self._folder) if (self._folder / MOMENTS).exists() else None

    def _rows(self, rows: Sequence[int] | None) -> Iterable[int]:
        return range(len(self.names)) if rows is None else rows

    def means(self, rows: Sequence[int] | None = None) -> Tensor:
        """(E, P)."""
        import torch

        return torch.stack([self._read(row)[0] for row in self._rows(rows)])

    def variances(self, rows: Sequence[int] | None = None) -> Tensor:
        """(E, P)."""
        import torch

        return torch.stack([self._read(row)[1] for row in self._rows(rows)])

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield means and variances (n, P) of all experts, in batches."""
        import torch

        for first in range(0, len(self.names), _CHUNK):
            some = [self._load(row) for row in range(len(self.names))[first : first + _CHUNK]]
            yield torch.stack([mean for mean, _ in some]), torch.stack([variance for _, variance in some])


def _numbers(flat_P: Tensor, path: Path, layout: Layout) -> Tensor:
    """Check an adapter (P,) of a file. Raises BadFile for another shape, Mismatch for numbers that are not finite."""
    if flat_P.shape != (layout.size,):
        message = f"{path} has the shape {tuple(flat_P.shape)}, the pack's adapters have {layout.size} parameters"
        raise BadFile(message, "build or fetch the pack again")
    return checked_flat(flat_P.float(), str(path))


def _check_apart(manifest: Path, files: Mapping[str, str]) -> None:
    """Raise BadFile if two tasks have the same file, because one of them overwrote the other in the build."""
    owner: dict[str, str] = {}
    for key, file in files.items():
        if (other := owner.setdefault(file, key)) != key:
            raise BadFile(
                f"{manifest}: tasks {other!r} and {key!r} have the same file {file}, so one overwrote the other",
                "build the pack again; in new packs every task has its own file",
            )
