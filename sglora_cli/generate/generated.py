"""The result of `generate`: adapters for one task, their prior, and how well the pack covers the task.

Shapes: S samples, P parameters of an adapter, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.adapter.file import AdapterFile, load_adapter, packed_adapter, save_adapter
from sglora_cli.adapter.formats import format_of
from sglora_cli.adapter.library import keep
from sglora_cli.adapter.provenance import line, table
from sglora_cli.data.description import Description
from sglora_cli.errors import Unavailable, UsageError
from sglora_cli.lora.attention import attached
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import Prior
from sglora_cli.pack.coverage import Coverage
from sglora_cli.plugin.contracts import Model
from sglora_cli.system.display import counted


@dataclass(frozen=True)
class Generated:
    """Adapters for one task (S, P), with the prior they came from."""

    description: Description
    adapters_SP: Tensor
    prior: Prior
    layout: Layout
    metadata: dict[str, Any]
    """Provenance, as written to the files."""
    warnings: tuple[str, ...]
    drawn: tuple[int, ...]
    """The index of each adapter's draw. These are not consecutive if only the best were kept."""
    coverage: Coverage

    def __repr__(self) -> str:
        size = f"{counted(len(self.adapters_SP), 'adapter')} of {counted(self.layout.size, 'parameter')}"
        return line("Generated", self.metadata, size)

    def _repr_html_(self) -> str:
        facts = {
            "adapters": len(self.adapters_SP),
            "layout": self.layout.line,
            "closeness": f"{self.coverage.closeness:.2f} to the tasks the pack has seen",
            "warning": "; ".join(self.warnings) or None,
        }
        return table(self.metadata, facts)

    def adapter(self, sample: int = 0) -> AdapterFile:
        """Return one of the adapters with its provenance, as `save` writes it."""
        return AdapterFile(self.layout, self.adapters_SP[sample], {**self.metadata, "sample": self.drawn[sample]})

    @contextmanager
    def attached(self, model: Any, sample: int = 0) -> Iterator[Any]:
        """Attach one of the adapters to a model inside the block. Afterwards the model is bitwise unchanged.

        model: `session.model`, for which the block gets an adapted model whose encode_image(stem) is (N, D). Otherwise
        a CLIP module of open_clip or transformers with the backbone's weights, or its visual encoder, which has the
        adapter inside the block. Raises Mismatch for other models.
        """
        flat_P = self.adapters_SP[sample]
        if isinstance(model, torch.nn.Module):
            with attached(model, self.layout, flat_P) as module:
                yield module
            return
        self.adapter(sample).check_model(model)
        yield Adapted(model, self.layout, flat_P)

    def paths(self, path: Path) -> list[Path]:
        """Return the file of each sample: `path`, numbered if there are several samples."""
        if len(self.adapters_SP) == 1:
            return [path]
        return [path.with_name(f"{path.stem}-{s}{path.suffix}") for s in range(len(self.adapters_SP))]

    def save(self, path: Path | str | None = None, format: str = "", model: Model | None = None) -> list[Path]:
        """Write every sample and return the files or folders. The written files are read back and compared.

        Without a path, the files are stored in the user cache and named after the sentence. A format other than
        sglora's own needs the model, to check that the effect is the same.
        """
        adapters = [self.adapter(sample) for sample in range(len(self.adapters_SP))]
        if path is None:
            sentence = str(self.description)
            return [_checked(keep(packed_adapter(a.layout, a.flat_P, a.metadata), sentence), a) for a in adapters]
        written_as = format_of(path, format)
        paths = self.paths(Path(path))
        for target, adapter in zip(paths, adapters, strict=True):
            if written_as.name == "safetensors":
                save_adapter(target, adapter.layout, adapter.flat_P, adapter.metadata)
                _checked(target, adapter)
                continue
            from sglora_cli.adapter.write import write_adapter

            if model is None:
                raise UsageError(f"format {written_as.name!r} cannot be written without the model", "pass model=")
            write_adapter(target, adapter, model, written_as)
        return paths


def _checked(path: Path, adapter: AdapterFile) -> Path:
    """Return the path. Raises Unavailable unless its file has the same bits as the adapter."""
    if not torch.equal(load_adapter(path).flat_P, adapter.flat_P):
        raise Unavailable(f"{path} differs from what was written", "check the disk for errors")
    return path


class Adapted:
    """A model with one adapter. Only `encode_image` differs from the model."""

    def __init__(self, model: Model, layout: Layout, flat_P: Tensor) -> None:
        self._model, self._layout, self._adapter_TP = model, layout, flat_P[None]

    def encode_image(self, stem: Tensor) -> Tensor:
        """Return unit vectors, float32: (N, D)."""
        return self._model.encode_image(stem, self._layout, self._adapter_TP)[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
