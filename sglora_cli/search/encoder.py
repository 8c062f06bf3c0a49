"""A backbone with an optional adapter, which embeds sentences and photos.

Shapes: C sentences, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.adapter.file import AdapterFile, load_adapter
from sglora_cli.adapter.foreign import ForeignAdapter
from sglora_cli.adapter.provenance import task_of
from sglora_cli.adapter.read import Found, provenance, read_adapter, recognise
from sglora_cli.config import RuntimeConfig
from sglora_cli.data.embeddings import PhotoEmbeddings, photo_embeddings
from sglora_cli.data.encode import check_text
from sglora_cli.errors import Mismatch, UsageError
from sglora_cli.pack.library import Library
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sites import site_choices
from sglora_cli.system import settings
from sglora_cli.system.display import quoted

_TEXTS = 256


@dataclass(frozen=True)
class Encoder:
    """A model with an optional adapter."""

    model: Model
    backbone: str
    """The model's name."""
    because: str
    """Why this backbone was chosen."""
    precision: str
    adapter: AdapterFile | None = None
    file: str = ""
    """The adapter's file name."""

    @classmethod
    def of(cls, host: Host, adapter: Path | None, backbone: str, runtime: RuntimeConfig) -> Encoder:
        """Load an adapter's encoder as `of_adapter`, or without an adapter the named backbone.

        Without a name, the backbone of the pack that `sglora generate` uses is loaded. Raises as `of_adapter`.
        """
        if adapter:
            return cls.of_adapter(host, adapter, backbone, runtime)
        because = "given on the command line"
        if not backbone:
            location, why = Library(host.recipe_folders).find()
            backbone, because = Pack(location.folder).backbone, f"that of pack {location.name}: {why}"
        model = host.backbones[backbone].load(settings.runtime(runtime, backbone))
        return cls(model, backbone, because, runtime.precision)

    @classmethod
    def of_adapter(cls, host: Host, path: Path, backbone: str, runtime: RuntimeConfig) -> Encoder:
        """Load an adapter in any format, with its backbone.

        A file of another program does not record its backbone, so the default of the settings is used. Raises
        UsageError, UnknownName, BadFile, and Mismatch if adapter and backbone do not fit.
        """
        source = _source(path)
        ours = isinstance(source, AdapterFile)
        about = source.metadata if isinstance(source, AdapterFile) else provenance(source)
        name = backbone or about.get("backbone") or ("" if ours else settings.load().backbone)
        if not isinstance(name, str) or not name:
            raise UsageError(f"{path} does not record its backbone", "pass --backbone NAME")
        model = host.backbones[name].load(settings.runtime(runtime, name))
        because = "given on the command line" if backbone else "the adapter's"
        return cls(model, name, because, runtime.precision, _fitting(source, model, name), path.name)

    @classmethod
    def of_model(
        cls,
        model: Model,
        backbone: str,
        because: str,
        precision: str,
        adapter: AdapterFile | ForeignAdapter | Path | None,
    ) -> Encoder:
        """Combine a loaded model with an adapter in memory or in a file of any format.

        Raises BadFile, and Mismatch for an adapter that does not fit the model.
        """
        if adapter is None:
            return cls(model, backbone, because, precision)
        source, file = (_source(adapter), adapter.name) if isinstance(adapter, Path) else (adapter, "")
        return cls(model, backbone, because, precision, _fitting(source, model, backbone), file)

    @property
    def line(self) -> str:
        """Backbone and adapter in a line."""
        adapter = f"adapter for {task_of(self.about)}" if self.adapter else "no adapter"
        return f"backbone {quoted(self.backbone)}, {adapter}"

    @property
    def facts(self) -> dict[str, object]:
        """Backbone and adapter as table rows."""
        return {"backbone": self.backbone, "adapter": f"for {task_of(self.about)}" if self.adapter else "none"}

    def __repr__(self) -> str:
        return f"Encoder({self.line})"

    @property
    def about(self) -> Mapping[str, Any]:
        """The adapter's metadata; {} without an adapter."""
        return self.adapter.metadata if self.adapter else {}

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as unit vectors (C, D), float32, on the CPU. Raises Mismatch for a text that is too long."""
        for text in texts:
            check_text(self.model, text)
        parts = [self.model.encode_text(texts[i : i + _TEXTS]).float().cpu() for i in range(0, len(texts), _TEXTS)]
        return torch.cat(parts)

    def photos(self, photos: Mapping[str, Path]) -> PhotoEmbeddings:
        """Embed photos, or load their embeddings from the cache. Raises BadFile if none can be read."""
        layout, flat_P = (self.adapter.layout, self.adapter.flat_P) if self.adapter else (None, None)
        return photo_embeddings(self.model, photos, layout, flat_P, self.precision)


def _source(path: Path) -> AdapterFile | Found:
    """Load a file of sglora, or recognise one of another program. Raises BadFile."""
    found = recognise(path)
    return load_adapter(path) if found.kind == "safetensors" else found


def _fitting(source: AdapterFile | ForeignAdapter | Found, model: Model, backbone: str) -> AdapterFile:
    """Convert an adapter for a model. Raises BadFile, and Mismatch if the two do not fit."""
    if isinstance(source, Found):
        source = read_adapter(source, model, backbone=backbone)
    if isinstance(source, ForeignAdapter):
        placed = source.placed(site_choices(model))
        layout = placed.layout()
        about = {**placed.metadata, "fingerprint": placed.fingerprint or model.fingerprint}
        source = AdapterFile(layout, placed.fitted(layout)[0], about)
    source.check_model(model)
    return source


DECIMALS = 6  # smaller differences are rounding errors, and equal images in different batches must tie


def cosines(image_ND: Tensor, text_CD: Tensor) -> Tensor:
    """Return rounded cosine similarities (N, C). Raises Mismatch if one is not finite."""
    scores_NC = torch.round(image_ND @ text_CD.T, decimals=DECIMALS)
    if not bool(torch.isfinite(scores_NC).all()):
        raise Mismatch("a score is not finite", "try --precision fp32")
    return scores_NC
