"""Reading an adapter in any of the known formats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.adapter import checkpoint, clip_lora, peft
from sglora_cli.adapter.file import load_adapter
from sglora_cli.adapter.foreign import ForeignAdapter, checked_parts
from sglora_cli.adapter.torch_files import ADAPTER_LIMIT, PICKLE_STARTS, check_size, load_pickle
from sglora_cli.errors import BadFile, Mismatch, UsageError
from sglora_cli.files.tensors import read_metadata, tensor_names
from sglora_cli.plugin.contracts import Model


@dataclass(frozen=True)
class ReadOptions:
    """What a reader may need besides the file; see `read_adapter`."""

    model: Model | None = None
    alpha: float | None = None
    rank: int | None = None


def _native(path: Path, options: ReadOptions) -> ForeignAdapter:
    check_size(path, ADAPTER_LIMIT)
    adapter = load_adapter(path)
    layout = adapter.layout
    parts = checked_parts(layout.split(adapter.flat_P), str(path))
    scaled = {name: (b * layout.scaling, a) for name, (b, a) in parts.items()}
    return ForeignAdapter(scaled, "safetensors", layout.scaling, adapter.metadata)


def _merged(path: Path, options: ReadOptions) -> ForeignAdapter:
    if options.model is None:
        raise Mismatch(f"{path} is a whole checkpoint: its update is the difference to a backbone", "name the backbone")
    return checkpoint.read(path, options.model, options.rank)


READERS: Mapping[str, Callable[[Path, ReadOptions], ForeignAdapter]] = {
    "safetensors": _native,
    "peft": lambda path, options: peft.read_folder(path),
    "peft state": lambda path, options: peft.read_bare(path, options.alpha),
    "clip-lora": lambda path, options: clip_lora.read(path),
    "open_clip": _merged,
}


def recognise(path: Path) -> str:
    """The key of READERS for a file or folder, by its content. Raises BadFile if it is no adapter."""
    if path.is_dir():
        if (path / peft.CONFIG).exists():
            return "peft"
        raise BadFile(f"{path} has no {peft.CONFIG}, so it is no PEFT folder", "name an adapter's file or folder")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise BadFile.missing(path) from None
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    if start[:2] in PICKLE_STARTS:
        if path.name == peft.OLD_WEIGHTS:
            return "peft state"
        return "clip-lora" if clip_lora.is_clip_lora(load_pickle(path)) else "open_clip"
    if start[8:9] == b"{":
        return _kind_of_tensors(path)
    raise BadFile(
        f"{path} is in no format that is known here",
        "an adapter is a .safetensors file, a PEFT folder, a .pt file of CLIP-LoRA, or a merged checkpoint",
    )


def _kind_of_tensors(path: Path) -> str:
    names, metadata = tensor_names(path)
    kinds = {"adapter": "safetensors", "merged": "open_clip"}
    if "kind" in metadata:
        if (kind := str(metadata["kind"])) not in kinds:
            raise BadFile(f"{path} is a {kind}, not an adapter of sglora")
        return kinds[kind]
    return "peft state" if any(".lora_" in name for name in names) else "open_clip"


def provenance(path: Path) -> dict[str, Any]:
    """The metadata of an adapter of ours in any format, without reading its numbers; {} for a foreign file."""
    file = path / peft.WEIGHTS if path.is_dir() else path
    if not file.is_file():
        return {}
    with file.open("rb") as opened:
        safe = opened.read(9)[8:] == b"{"
    return read_metadata(file) if safe else {}


def read_adapter(
    path: Path,
    model: Model | None = None,
    *,
    alpha: float | None = None,
    rank: int | None = None,
    visual_only: bool = False,
) -> ForeignAdapter:
    """Read an adapter in any of the formats of READERS; with a model, under the names of its sites.

    alpha: lora_alpha of a PEFT state without its configuration.  rank: that of a merged
    checkpoint's update, by default the smallest that holds it.  visual_only: leave out updates
    outside the visual encoder.  Raises BadFile for a file that is damaged or no adapter, Mismatch for an
    adapter that is no update B A of this model's sites, or an update of zero.
    """
    kind = recognise(path)
    if alpha is not None and kind != "peft state":
        raise UsageError(f"{path} says its scaling itself", "leave out --alpha")
    if alpha is not None and not (math.isfinite(alpha) and alpha > 0):
        raise UsageError(f"alpha must be positive and finite, got {alpha:g}")
    foreign = READERS[kind](path, ReadOptions(model, alpha, rank))
    if model is None:
        return foreign
    if foreign.fingerprint and foreign.fingerprint != model.fingerprint:
        raise Mismatch(
            f"the adapter was made for a backbone with fingerprint {foreign.fingerprint}, this one has "
            f"{model.fingerprint}",
            "use the backbone and the weights it was made for",
        )
    return foreign.placed(model.sites, visual_only)
