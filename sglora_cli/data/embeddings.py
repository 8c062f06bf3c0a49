"""Embeddings of photos without and with an adapter, computed once for each content of a photo.

An adapter of the last projection alone changes nothing before it. So the input of that projection is kept, too: another
adapter of that kind costs one product of matrices, and no photo is decoded for it.
Shapes: N photos, D embedding, I input of the projection, P numbers of an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.data.ahead import readable
from sglora_cli.data.photo_store import PhotoStore, photo_store
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files.hashes import content_hash
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.projection import project, split_projection
from sglora_cli.plugin.contracts import HasProjection, Model
from sglora_cli.plugin.sites import is_projection_alone
from sglora_cli.system import cache
from sglora_cli.system.progress import working

VERSION = 1
"""Of the numbers: another one makes everything computed before unknown."""
_AT_ONCE = 4096
"""Rows that are projected at once."""


@dataclass(frozen=True)
class PhotoEmbeddings:
    """Unit vectors of photos, float32, on the CPU."""

    names: tuple[str, ...]
    """Of the N photos that could be read."""
    sha256s: tuple[str, ...]
    """Of their bytes, in hexadecimal."""
    plain_ND: Tensor = field(repr=False)
    """Without an adapter."""
    adapted_ND: Tensor = field(repr=False)
    """With the adapter; without one `plain_ND` itself."""
    skipped: tuple[str, ...]
    """Why other photos are missing, in sentences."""
    computed: int
    """Photos that had to be decoded."""


@cache.lease()
def photo_embeddings(
    model: Model,
    photos: Mapping[str, Path],
    layout: Layout | None = None,
    flat_P: Tensor | None = None,
    precision: str = "",
) -> PhotoEmbeddings:
    """Embed photos, or take what was computed for the same bytes before. Photos that cannot be read are left out.

    photos: by their names.  layout, flat_P: an adapter, or None.  precision: what the user asked for; with the device
    it says in which numbers the backbone computes. Raises BadFile if no photo can be read, Mismatch for numbers that
    are not finite.
    """
    adapter = None if layout is None or flat_P is None else (layout, flat_P)
    with photo_store() as store:
        content = dict(zip(photos, store.hashes(list(photos.values())), strict=True))
        paths = {sha256: photos[name] for name, sha256 in content.items() if isinstance(sha256, str)}
        vectors = _Vectors(model, store, adapter, precision, paths)
        refused = vectors.complete()
    known: dict[str, str] = {}
    skipped = []
    for name, sha256 in content.items():
        error = sha256 if isinstance(sha256, BadFile) else refused.get(sha256)
        if error:
            skipped.append(error.message)
        else:
            known[name] = str(sha256)
    if not known:
        raise BadFile(f"none of {len(photos)} image(s) can be read: {skipped[0]}")
    plain_ND, adapted_ND = (torch.stack([side[sha256] for sha256 in known.values()]) for side in vectors.sides)
    return PhotoEmbeddings(
        tuple(known), tuple(known.values()), plain_ND, adapted_ND, tuple(skipped), vectors.computed - len(refused)
    )


class _Vectors:
    """What is known of photos: their plain and their adapted embedding by the hash of their bytes."""

    def __init__(
        self,
        model: Model,
        store: PhotoStore,
        adapter: tuple[Layout, Tensor] | None,
        precision: str,
        paths: Mapping[str, Path],
    ) -> None:
        """paths: a file with each hash."""
        self._model, self._store, self._adapter, self._paths = model, store, adapter, paths
        how = [VERSION, model.fingerprint, model.device.type, precision]
        self._plain_space, self._input_space = content_hash(how, "plain"), content_hash(how, "projection input")
        self._adapted_space = content_hash(how, adapter[0].to_json(), adapter[1]) if adapter else self._plain_space
        self._plain = store.vectors(self._plain_space, paths)
        self._adapted = store.vectors(self._adapted_space, paths) if adapter else self._plain
        self.computed = 0
        """Photos that were decoded, or that could not be."""

    @property
    def sides(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        return self._plain, self._adapted

    def complete(self) -> dict[str, BadFile]:
        """Compute whatever is missing. By their hashes, why photos cannot be read."""
        missing = [sha256 for sha256 in self._paths if sha256 not in self._plain or sha256 not in self._adapted]
        if self._is_projection_alone:
            inputs = self._store.vectors(self._input_space, missing)
            for start in range(0, len(inputs), _AT_ONCE):
                some = list(inputs)[start : start + _AT_ONCE]
                self._keep(some, *self._projected(torch.stack([inputs[sha256] for sha256 in some])))
            missing = [sha256 for sha256 in missing if sha256 not in inputs]
        refused: dict[str, BadFile] = {}

        def refuse(n: int, error: BadFile) -> None:
            refused[missing[n]] = error

        with working("images", len(missing)) as advance:
            for rows, stem in readable(self._model, [(self._paths[sha256], sha256) for sha256 in missing], refuse):
                self._look([missing[n] for n in rows], stem.half())  # as it was in training
                advance(len(rows), "")
        self.computed = len(missing)
        return refused

    @property
    def _is_projection_alone(self) -> bool:
        return self._adapter is None or is_projection_alone(self._model, self._adapter[0])

    @torch.no_grad()
    def _look(self, sha256s: Sequence[str], stem: Tensor) -> None:
        """Embed photos by their stems (N, ...)."""
        model, input_NI = self._model, None
        if isinstance(model, HasProjection):
            input_NI = model.unprojected(stem).float().cpu()
        if input_NI is not None and self._is_projection_alone:
            plain_ND, adapted_ND = self._projected(input_NI)
        else:
            plain_ND = adapted_ND = model.encode_image(stem).float().cpu()
            if self._adapter:
                layout, flat_P = self._adapter
                adapted_ND = model.encode_image(stem, layout, flat_P[None])[0].float().cpu()
        self._keep(sha256s, plain_ND, adapted_ND)
        if input_NI is not None:  # as finite as the embeddings that follow from it
            self._store.put(self._input_space, dict(zip(sha256s, input_NI, strict=True)))

    @torch.no_grad()
    def _projected(self, input_NI: Tensor) -> tuple[Tensor, Tensor]:
        """Plain and adapted embeddings (N, D) by the input of the projection."""
        assert isinstance(self._model, HasProjection)
        plain_ND = F.normalize(project(input_NI, self._weight_DI), dim=-1)
        if not self._adapter:
            return plain_ND, plain_ND
        layout, flat_P = self._adapter
        _, update = split_projection(layout, flat_P[None].cpu(), self._model.projection)
        return plain_ND, F.normalize(project(input_NI, self._weight_DI, update)[0], dim=-1)

    @cached_property
    def _weight_DI(self) -> Tensor:
        assert isinstance(self._model, HasProjection)
        return self._model.projection_weight().float().cpu()

    def _keep(self, sha256s: Sequence[str], plain_ND: Tensor, adapted_ND: Tensor) -> None:
        sides = {self._plain_space: (self._plain, plain_ND), self._adapted_space: (self._adapted, adapted_ND)}
        for space, (side, rows_ND) in sides.items():  # one without an adapter
            if not bool(torch.isfinite(rows_ND).all()):
                raise Mismatch("an embedding of a photo is not finite", "try --precision fp32")
            rows = dict(zip(sha256s, rows_ND, strict=True))
            side.update(rows)
            self._store.put(space, rows)
