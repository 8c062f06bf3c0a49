"""Embeddings of photos without and with an adapter, computed once per content of a photo.

An adapter of the last projection alone does not change the input of that projection. The input is therefore cached,
too. For another adapter of this kind, no photo is decoded and the embeddings cost one matrix product.
Shapes: N photos, D embedding, I input of the projection, P parameters of an adapter.
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
from sglora_cli.data.photo_store import PhotoFiles, PhotoStore, matrix, photo_store, rows_of
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files.hashes import content_hash
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.projection import project, split_projection
from sglora_cli.plugin.contracts import HasProjection, Model
from sglora_cli.plugin.sites import is_projection_alone
from sglora_cli.system import cache
from sglora_cli.system.progress import working

VERSION = 1
"""Version of the numbers. A new version invalidates everything that is cached."""
_AT_ONCE = 4096
"""Rows per projection."""


@dataclass(frozen=True)
class PhotoEmbeddings:
    """Unit vectors of photos, float32, on the CPU."""

    names: tuple[str, ...]
    """Names of the N photos that could be read."""
    sha256s: tuple[str, ...]
    """SHA-256 of their bytes, in hexadecimal."""
    plain_ND: Tensor = field(repr=False)
    """Without an adapter."""
    adapted_ND: Tensor = field(repr=False)
    """With the adapter. The same tensor as `plain_ND` if there is no adapter."""
    skipped: tuple[str, ...]
    """One error message per photo that could not be read."""
    computed: int
    """Number of photos that were not cached and had to be decoded."""


@cache.lease()
def photo_embeddings(
    model: Model,
    photos: Mapping[str, Path],
    layout: Layout | None = None,
    flat_P: Tensor | None = None,
    precision: str = "",
) -> PhotoEmbeddings:
    """Embed photos, or load their cached embeddings. Photos that cannot be read are skipped.

    photos: name to path.  layout, flat_P: an adapter, or None.  precision: the requested precision, part of the cache's
    key. Raises BadFile if no photo can be read, Mismatch if an embedding is not finite.
    """
    adapter = None if layout is None or flat_P is None else (layout, flat_P)
    files, spaces = PhotoFiles.of(list(photos.values())), _Spaces.of(model, adapter, precision)
    with photo_store() as store:
        key = content_hash(spaces.plain, spaces.adapted, files.key)
        found = _unpacked(store.collection(key), tuple(photos), 2 if adapter else 1)
        if found is None:
            found = _embedded(
                model, dict(zip(photos, store.hashes(files), strict=True)), photos, adapter, spaces, store
            )
            if not found.skipped and files.can_be_cached:
                store.put_collection(key, _packed(found))
    return found


def _embedded(
    model: Model,
    content: Mapping[str, str | BadFile],
    photos: Mapping[str, Path],
    adapter: tuple[Layout, Tensor] | None,
    spaces: _Spaces,
    store: PhotoStore,
) -> PhotoEmbeddings:
    """Embed photos, photo by photo where they are not cached.

    content: name to hash, or to the error of a photo that cannot be read.
    """
    paths = {sha256: photos[name] for name, sha256 in content.items() if isinstance(sha256, str)}
    vectors = _Vectors(model, store, adapter, spaces, paths)
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
    plain_ND = adapted_ND = matrix([vectors.plain[sha256] for sha256 in known.values()])
    if adapter:
        adapted_ND = matrix([vectors.adapted[sha256] for sha256 in known.values()])
    return PhotoEmbeddings(
        tuple(known), tuple(known.values()), plain_ND, adapted_ND, tuple(skipped), vectors.computed - len(refused)
    )


def _packed(found: PhotoEmbeddings) -> bytes:
    """The hashes and the two matrices of embeddings, one after the other."""
    sides = [found.plain_ND] if found.adapted_ND is found.plain_ND else [found.plain_ND, found.adapted_ND]
    return b"".join([*map(bytes.fromhex, found.sha256s), *(side.numpy().tobytes() for side in sides)])


def _unpacked(data: memoryview | None, names: tuple[str, ...], sides: int) -> PhotoEmbeddings | None:
    """What `_packed` packed, of the photos with these names. sides: matrices, 1 without an adapter."""
    if data is None:
        return None
    hashes = data[: 32 * len(names)].hex()
    sha256s = tuple(hashes[start : start + 64] for start in range(0, len(hashes), 64))
    matrices = torch.frombuffer(bytearray(data[32 * len(names) :]), dtype=torch.float32).view(sides, len(names), -1)
    plain_ND, *adapted_ND = matrices.unbind()
    return PhotoEmbeddings(names, sha256s, plain_ND, adapted_ND[0] if adapted_ND else plain_ND, (), 0)


@dataclass(frozen=True)
class _Spaces:
    """Names of what is cached per photo."""

    plain: str
    adapted: str
    """The same as `plain` without an adapter."""
    input: str
    """Of the projection."""

    @classmethod
    def of(cls, model: Model, adapter: tuple[Layout, Tensor] | None, precision: str) -> _Spaces:
        how = [VERSION, model.fingerprint, model.device.type, precision]
        plain = content_hash(how, "plain")
        adapted = content_hash(how, adapter[0].to_json(), adapter[1]) if adapter else plain
        return cls(plain, adapted, content_hash(how, "projection input"))


class _Vectors:
    """Rows of embeddings without and with an adapter, by the hash of the photo."""

    def __init__(
        self,
        model: Model,
        store: PhotoStore,
        adapter: tuple[Layout, Tensor] | None,
        spaces: _Spaces,
        paths: Mapping[str, Path],
    ) -> None:
        """paths: one file per hash."""
        self._model, self._store, self._adapter, self._spaces, self._paths = model, store, adapter, spaces, paths
        self.plain = store.vectors(spaces.plain, paths)
        self.adapted = store.vectors(spaces.adapted, paths) if adapter else self.plain
        self.computed = 0
        """Number of photos that were decoded or failed to decode."""

    def complete(self) -> dict[str, BadFile]:
        """Compute the missing rows. Returns the errors of unreadable photos by their hash."""
        missing = [sha256 for sha256 in self._paths if sha256 not in self.plain or sha256 not in self.adapted]
        if self._is_projection_alone:
            inputs = self._store.vectors(self._spaces.input, missing)
            for start in range(0, len(inputs), _AT_ONCE):
                some = list(inputs)[start : start + _AT_ONCE]
                self._keep(some, *self._projected(matrix([inputs[sha256] for sha256 in some])))
            missing = [sha256 for sha256 in missing if sha256 not in inputs]
        refused: dict[str, BadFile] = {}

        def refuse(n: int, error: BadFile) -> None:
            refused[missing[n]] = error

        with working("images", len(missing)) as advance:
            for rows, stem in readable(self._model, [(self._paths[sha256], sha256) for sha256 in missing], refuse):
                self._embed([missing[n] for n in rows], stem.half())  # as in training
                advance(len(rows), "")
        self.computed = len(missing)
        return refused

    @property
    def _is_projection_alone(self) -> bool:
        return self._adapter is None or is_projection_alone(self._model, self._adapter[0])

    @torch.no_grad()
    def _embed(self, sha256s: Sequence[str], stem: Tensor) -> None:
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
        if input_NI is not None:  # finite, because the embeddings computed from it are
            self._store.put(self._spaces.input, dict(zip(sha256s, rows_of(input_NI), strict=True)))

    @torch.no_grad()
    def _projected(self, input_NI: Tensor) -> tuple[Tensor, Tensor]:
        """Compute plain and adapted embeddings (N, D) from the input of the projection."""
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
        sides = {self._spaces.plain: (self.plain, plain_ND), self._spaces.adapted: (self.adapted, adapted_ND)}
        for space, (side, rows_ND) in sides.items():  # one side if there is no adapter
            if not bool(torch.isfinite(rows_ND).all()):
                raise Mismatch("an embedding of a photo is not finite", "try --precision fp32")
            rows = dict(zip(sha256s, rows_of(rows_ND), strict=True))
            side.update(rows)
            self._store.put(space, rows)
