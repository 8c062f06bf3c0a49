"""Recognise and read an adapter in any supported format."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sglora_cli.adapter import checkpoint, clip_lora, peft
from sglora_cli.adapter.base import Base
from sglora_cli.adapter.file import load_adapter
from sglora_cli.adapter.foreign import ForeignAdapter, checked_parts
from sglora_cli.adapter.peft_config import CONFIG
from sglora_cli.adapter.state_dict import FOLDER_FILES, check_names, pickled_tensors
from sglora_cli.adapter.torch_files import ADAPTER_LIMIT, check_size, load_pickle, starts_pickle
from sglora_cli.errors import BadFile, Mismatch, SgloraWarning, UsageError
from sglora_cli.files.escape import shell_word
from sglora_cli.files.tensors import read_metadata, tensor_names
from sglora_cli.files.untrusted import check_regular
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.fingerprint import check_fingerprint
from sglora_cli.plugin.sites import site_choices


@dataclass(frozen=True)
class ReadOptions:
    """Options that a reader may need besides the file; see `read_adapter`."""

    model: Model | None = None
    alpha: float | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Found:
    """A file or folder that is an adapter."""

    path: Path
    kind: str
    """A key of READERS."""
    content: Any = None
    """The content of a PyTorch file, which is read only once."""


def _native(found: Found, options: ReadOptions) -> ForeignAdapter:
    path = found.path
    check_size(path, ADAPTER_LIMIT)
    adapter = load_adapter(path)
    layout = adapter.layout
    parts = checked_parts(layout.split(adapter.flat_P), str(path))
    scaled = {name: (b * layout.scaling, a) for name, (b, a) in parts.items()}
    return ForeignAdapter(scaled, "safetensors", layout.scaling, adapter.metadata)


def _merged(found: Found, options: ReadOptions) -> ForeignAdapter:
    if options.model is None:
        raise Mismatch(
            f"{found.path} is a complete checkpoint, whose update is its difference to a backbone", "pass --backbone"
        )
    return checkpoint.read(found.path, options.model, options.rank, found.content)


READERS: Mapping[str, Callable[[Found, ReadOptions], ForeignAdapter]] = {
    "safetensors": _native,
    "peft": lambda found, options: peft.read_folder(found.path),
    "peft state": lambda found, options: peft.read_bare(found.path, options.alpha, found.content),
    "clip-lora": lambda found, options: clip_lora.read(found.path, found.content),
    "open_clip": _merged,
}


def recognise(path: Path) -> Found:
    """Determine the format of a file or folder by its content. Raises BadFile if it is not an adapter."""
    if path.is_dir():
        if (path / CONFIG).exists():
            return Found(path, "peft")
        if (path / "pack.json").exists():  # not imported, as this package must not depend on sglora_cli.pack
            command = f'sglora generate "a photo of a ..." --pack {shell_word(path)} -o adapter.safetensors'
            raise BadFile(f"{path} is a pack, not an adapter", f"generate an adapter: {command}")
        if merged := next((path / name for name in FOLDER_FILES if (path / name).is_file()), None):
            return recognise(merged)
        raise BadFile(f"{path} has no {CONFIG} and no merged model", "pass an adapter's file or folder")
    check_regular(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise BadFile.missing(path) from None
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    if starts_pickle(start):
        content = load_pickle(path)
        if clip_lora.is_clip_lora(content):
            return Found(path, "clip-lora", content)
        return Found(path, _kind_of_names(path, pickled_tensors(path, content)), content)
    if start[8:9] == b"{":
        return Found(path, _kind_of_tensors(path))
    raise BadFile(
        f"{path} has an unknown format",
        "pass a .safetensors file, a PEFT folder, a .pt file of CLIP-LoRA or PEFT, or a merged checkpoint",
    )


def _kind_of_tensors(path: Path) -> str:
    names, metadata = tensor_names(path)
    kinds = {"adapter": "safetensors", "merged": "open_clip"}
    if "kind" in metadata:
        if (kind := str(metadata["kind"])) not in kinds:
            message = f"{path} is an sglora file of kind {kind!r}, not an adapter"
            raise BadFile(message, "pass an adapter's file or folder")
        return kinds[kind]
    return _kind_of_names(path, names)


def _kind_of_names(path: Path, names: Iterable[str]) -> str:
    names = list(names)
    check_names(path, names)
    return "peft state" if any(".lora_" in name for name in names) else "open_clip"


def lacks_scaling(found: Found) -> bool:
    """Whether it is a PEFT state without the configuration that has its lora_alpha."""
    return found.kind == "peft state" and not (found.path.parent / CONFIG).exists()


def provenance(found: Found) -> dict[str, Any]:
    """Return the metadata of an sglora adapter in any format, without reading its parameters; {} for other files."""
    path = found.path
    if found.kind == "clip-lora":
        return clip_lora.provenance(path, found.content)
    file = path / peft.WEIGHTS if path.is_dir() else path
    if not file.is_file():
        return {}
    with file.open("rb") as opened:
        safe = opened.read(9)[8:] == b"{"
    return read_metadata(file) if safe else {}


def read_adapter(
    source: Path | Found,
    model: Model | None = None,
    *,
    backbone: str = "",
    alpha: float | None = None,
    rank: int | None = None,
    visual_only: bool = False,
    zero: bool = False,
) -> ForeignAdapter:
    """Read an adapter in any of the formats of READERS. With a model, the result uses the names of its sites.

    source: its path, or the result of `recognise`.  backbone: the model's name, for messages and to compare with the
    adapter's base.  alpha: lora_alpha of a PEFT state without its configuration.  rank: the rank of a merged
    checkpoint's update, by default the smallest that fits.  visual_only: ignore updates outside the visual encoder.
    zero: accept an update of zero.  Raises BadFile for a file that is damaged or not an adapter, and Mismatch for an
    adapter of another base, one that is not an update B A of this model's sites, or an update of zero. Warns if the
    base may differ from this model.
    """
    found = source if isinstance(source, Found) else recognise(source)
    if alpha is not None and found.kind != "peft state":
        raise UsageError(f"{found.path} contains its own scaling", "omit --alpha")
    if alpha is not None and not (math.isfinite(alpha) and alpha > 0):
        raise UsageError(f"alpha must be positive and finite, got {alpha:g}")
    foreign = READERS[found.kind](found, ReadOptions(model, alpha, rank))
    foreign.base.check_encoder(foreign.parts)
    if model is None:
        return foreign
    if foreign.fingerprint:
        made, remedy = "the adapter was made for a backbone", "use the backbone and weights that it was made for"
        check_fingerprint(model, foreign.fingerprint, made, remedy)
    doubt = ""
    if not foreign.fingerprint and found.kind != "open_clip":  # a checkpoint's other tensors are the backbone's
        doubt = stated_base(foreign, found.path).check_backbone(found.path, foreign.parts, model, backbone)
    placed = foreign.placed(site_choices(model), visual_only, zero)
    foreign.check_whole(found.path)
    if doubt:
        warnings.warn(doubt, SgloraWarning, stacklevel=2)
    return placed


def stated_base(foreign: ForeignAdapter, path: Path) -> Base:
    """Return the base that the file records. Files of sglora record it in their metadata."""
    stated = foreign.metadata.get("backbone")
    if foreign.base.name or not isinstance(stated, str):
        return foreign.base
    return replace(foreign.base, name=stated, where=str(path))
