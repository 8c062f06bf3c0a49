"""Packs of format 2, whose cost per sentence is the same for ten experts and for 100,000.

The manifest is small, tasks are lines of files (`tasks`), and experts are rows of files (`shards`). Results that depend
on all experts are stored in files of their own: the gauge (`gauge`) and the similarity of the experts' photos.

visual.safetensors: visual (E, D), the mean visual embeddings of the experts' photos, and nearest (E,), the cosine of
each to the nearest other one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.errors import BadFile
from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.lora.layout import Layout, checked_flat
from sglora_cli.pack.content.gauge import GAUGE, load_gauge
from sglora_cli.pack.content.manifest import MANIFEST
from sglora_cli.pack.content.names import file_name
from sglora_cli.pack.content.shards import ExpertShards, shard_file
from sglora_cli.pack.content.tasks import Keys, Tasks, parts, tasks_file, tasks_of
from sglora_cli.plugin.values import EXPERT, ROLES

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.lora.gauge import Gauge

VISUAL = "visual.safetensors"
_AT_ONCE = 512
"""The number of experts to compare with all others at once."""


class FormatTwo:
    """The content of a pack of format 2."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], layout: Layout) -> None:
        """Raise BadFile unless the manifest lists all files that its task counts require."""
        self._folder, self._listed, self._shards = folder, manifest["files"], manifest["shards"]
        if missing := next((name for name in needed_files(manifest) if name not in self._listed), ""):
            raise BadFile(f"{folder / MANIFEST} does not list {missing}", "build or fetch the pack again")
        self.tasks: Tasks = tasks_of(folder, manifest)
        self.experts = ExpertShards(folder, self._shards, Keys(self.tasks.of(EXPERT)), layout)

    def evaluation_file(self, key: str) -> str:
        """Return the path of an unseen task's evaluation data, relative to the pack's folder."""
        return f"evaluation/{file_name(key)}"

    @property
    def index_ED(self) -> Tensor:
        return self.experts.index_ED

    @property
    def meaning_EW(self) -> Tensor:
        return self.experts.meaning_EW

    @property
    def has_visual(self) -> bool:
        return VISUAL in self._listed

    @cached_property
    def visual_ED(self) -> Tensor:
        return self._visual("visual", 2)

    @cached_property
    def nearest_E(self) -> Tensor | None:
        return self._visual("nearest", 1)

    def gauge(self) -> Gauge:
        return load_gauge(self._folder, self.experts.layout)

    def states(self, row: int) -> Any:
        """Return the number of states that an expert is the mean of, if it is recorded."""
        return self.tasks.of(EXPERT)[row].get("states")

    def check(self, changed: Collection[str] | None = None) -> None:
        """Check experts and tasks, all or those of changed files. Raises BadFile or Mismatch if they are invalid."""
        for shard in range(len(self._shards)):
            if changed is None or shard_file(shard) in changed:
                self.experts.check(shard)
        if changed is None:
            self.tasks.check()
            _ = self.index_ED, self.meaning_EW
        else:
            self.tasks.check_files(changed)
        self.gauge()
        if self.has_visual:
            _ = self.visual_ED, self.nearest_E

    def _visual(self, name: str, axes: int) -> Tensor:
        path = self._folder / VISUAL
        tensor = load_tensors(path, (name,))[0][name].float()
        if tensor.ndim != axes or len(tensor) != len(self.experts.names):
            raise BadFile(f"{path} does not hold one row for each of {len(self.experts.names)} experts")
        return checked_flat(tensor, str(path))


def needed_files(manifest: Mapping[str, Any]) -> Iterable[str]:
    """Yield the files that a manifest must list."""
    for shard in range(len(manifest["shards"])):
        yield shard_file(shard)
        yield tasks_file(EXPERT, shard)
    for role in ROLES[1:]:
        for file in range(len(parts(manifest["counts"][role]))):
            yield tasks_file(role, file)
    yield GAUGE


def nearest_others(unit_ED: Tensor) -> Tensor:
    """Return the cosine (E,) of each row with the nearest other row; -2 if there is only one row."""
    import torch

    found = []
    for first in range(0, len(unit_ED), _AT_ONCE):
        cosine_NE = unit_ED[first : first + _AT_ONCE] @ unit_ED.T
        own = torch.arange(len(cosine_NE))
        cosine_NE[own, first + own] = -2.0
        found.append(cosine_NE.amax(dim=1))
    return torch.cat(found)


def save_visual(folder: Path, visual_ED: Tensor) -> None:
    tensors = {"visual": visual_ED.float(), "nearest": nearest_others(visual_ED.float())}
    save_tensors(folder / VISUAL, tensors, {"kind": "visual"})
