"""The experts of a pack, many per file. experts/00000.safetensors has mu, var (n, P), and the embeddings of their
descriptions, index (n, D) and meaning (n, W), float32.

A single expert is read as one row, so a sentence costs the same in any pack. All experts are read file by file. Every
row is checked when it is read. Shapes: E experts, n experts of a file, P parameters of an adapter, D embedding width,
W width of meaning.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.errors import BadFile
from sglora_cli.files.tensors import save_tensors
from sglora_cli.lora.layout import Layout, checked_flat
from sglora_cli.pack.content.manifest import AT_ONCE
from sglora_cli.pack.content.moments import MOMENTS, load_moments
from sglora_cli.plugin.values import Moments

if TYPE_CHECKING:
    from torch import Tensor

    from sglora_cli.files.plain_rows import PlainRows

EXPERTS = "experts"
PARTS = ("mu", "var", "index", "meaning")
"""Tensors of a file."""
_FILE_BYTES, _MEMORY_BYTES, _FEWEST = 128 << 20, 256 << 20, 64
"""Approximate limits of a file, which is rewritten when an expert is added, and of the experts cached in memory, of
which at least _FEWEST are cached."""


def shard_file(shard: int) -> str:
    """Return the path of a file of experts, relative to the pack's folder."""
    return f"{EXPERTS}/{shard:05d}.safetensors"


def shard_rows(layout: Layout) -> int:
    """Return the number of experts in a full file, a power of two.

    >>> from sglora_cli.lora.layout import Site
    >>> shard_rows(Layout((Site("q", 768, 768),), rank=2, alpha=2.0)), shard_rows(Layout((Site("q", 9, 9),), 2, 2.0))
    (1024, 1024)
    """
    fit = max(1, _FILE_BYTES // max(1, 8 * layout.size))
    return min(AT_ONCE, 1 << (fit.bit_length() - 1))


def save_shard(folder: Path, shard: int, tensors: Mapping[str, Tensor]) -> None:
    """Write one file of experts. tensors: all of `PARTS`."""
    save_tensors(folder / shard_file(shard), {name: tensors[name].float() for name in PARTS}, {"kind": "experts"})


class ExpertShards:
    """The expert repository (Eq. 5). Experts are read on demand, and the most recent ones are cached in memory."""

    def __init__(self, folder: Path, shards: Sequence[int], names: Sequence[str], layout: Layout) -> None:
        """folder: the pack's folder.  shards: the number of experts in each file."""
        self._folder, self._shards, self.names, self.layout = folder, tuple(shards), names, layout
        self._firsts = [0, *accumulate(self._shards)]
        self._most = max(_FEWEST, _MEMORY_BYTES // max(1, 8 * layout.size))
        self._read = lru_cache(maxsize=self._most)(self._load)
        self._open = lru_cache(maxsize=None)(self._opened)

    @cached_property
    def moments(self) -> Moments | None:
        """The moments, or None if the pack has none. Raises BadFile or Mismatch for an invalid file."""
        return load_moments(self._folder) if (self._folder / MOMENTS).exists() else None

    def means(self, rows: Sequence[int] | None = None) -> Tensor:
        """(E, P)."""
        return self._all_or_some("mu", rows)

    def variances(self, rows: Sequence[int] | None = None) -> Tensor:
        """(E, P)."""
        return self._all_or_some("var", rows)

    @cached_property
    def index_ED(self) -> Tensor:
        """Embeddings of the experts' descriptions."""
        return self._joined("index")

    @cached_property
    def meaning_EW(self) -> Tensor:
        """Embeddings of the descriptions by the backbone's sentence encoder."""
        return self._joined("meaning")

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield means and variances (n, P) of all experts, file by file."""
        for shard in range(len(self._shards)):
            yield self._checked(shard, "mu"), self._checked(shard, "var")

    def check(self, shard: int) -> None:
        """Read and check a file. Raises BadFile or Mismatch if it is invalid."""
        self.read_shard(shard)

    def read_shard(self, shard: int) -> dict[str, Tensor]:
        """Read all tensors of a file, as `save_shard` takes them."""
        return {name: self._checked(shard, name) for name in PARTS}

    def _joined(self, name: str) -> Tensor:
        import torch

        tensors = [self._checked(shard, name) for shard in range(len(self._shards))]
        if len({tensor.shape[1] for tensor in tensors}) != 1:
            raise BadFile(f"the files in {self._folder / EXPERTS} have different widths of {name}")
        return torch.cat(tensors)

    def _all_or_some(self, name: str, rows: Sequence[int] | None) -> Tensor:
        import torch

        if rows is None and len(self.names) > self._most:
            return torch.cat([self._checked(shard, name) for shard in range(len(self._shards))])
        which = 0 if name == "mu" else 1
        some = range(len(self.names)) if rows is None else rows
        return torch.stack([self._read(range(len(self.names))[row])[which] for row in some])

    def _load(self, row: int) -> tuple[Tensor, Tensor]:
        shard = bisect_right(self._firsts, row) - 1
        tensors = [self._part(shard, name, row - self._firsts[shard], 1)[0] for name in ("mu", "var")]
        return tensors[0], tensors[1]

    def _checked(self, shard: int, name: str) -> Tensor:
        """Read and check all rows of a tensor of a file."""
        return self._part(shard, name, 0, self._shards[shard])

    def _part(self, shard: int, name: str, first: int, count: int) -> Tensor:
        rows = self._open(shard)[name]
        tensor = checked_flat(rows.read(first, count), str(rows.path))
        if name == "var" and bool((tensor < 0).any()):
            raise BadFile(f"{rows.path} has a negative variance")
        return tensor

    def _opened(self, shard: int) -> Mapping[str, PlainRows]:
        import torch

        from sglora_cli.files.plain_rows import plain_rows

        count, size = self._shards[shard], self.layout.size
        shapes = {"mu": (count, size), "var": (count, size), "index": (count, None), "meaning": (count, None)}
        return plain_rows(self._folder / shard_file(shard), shapes, torch.float32)
