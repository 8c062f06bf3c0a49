"""Import an adapter of another program as an sglora file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.adapter import peft
from sglora_cli.adapter.file import AdapterFile
from sglora_cli.adapter.foreign import ForeignAdapter
from sglora_cli.adapter.formats import FORMATS, check_target, format_of
from sglora_cli.adapter.read import provenance, read_adapter, recognise
from sglora_cli.adapter.state_dict import FOLDER_FILES
from sglora_cli.adapter.write import write_adapter
from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import BadFile
from sglora_cli.files.hashes import file_hash
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.system import settings


@dataclass(frozen=True)
class ImportedAdapter:
    """The metadata of the written file, and lines of text that describe it."""

    metadata: dict[str, Any]
    lines: tuple[str, ...]


def import_adapter(
    host: Host,
    path: Path,
    out: Path,
    runtime: RuntimeConfig,
    *,
    backbone: str = "",
    alpha: float | None = None,
    rank: int | None = None,
    visual_only: bool = False,
    text: str = "",
    force: bool = False,
) -> ImportedAdapter:
    """Read an adapter for a backbone and write it as an sglora file, with its origin and the backbone's fingerprint.

    backbone: by default the backbone that the file records, or else that of the settings. Raises the errors of
    `read_adapter` and `write_adapter` and then writes nothing.
    """
    check_target(out, format_of(out, "safetensors"), force)
    sha256 = weights_hash(path)
    found = recognise(path)  # refuses a file that is not an adapter before the weights are loaded
    stated = provenance(found).get("backbone")
    backbone = backbone or (stated if isinstance(stated, str) else settings.load().backbone)
    model = host.backbones[backbone].load(settings.runtime(runtime, backbone, exact=True))
    foreign = read_adapter(found, model, backbone=backbone, alpha=alpha, rank=rank, visual_only=visual_only)
    layout = foreign.layout(rank)
    flat_P, error = foreign.fitted(layout)
    metadata = {
        **{key: value for key, value in foreign.metadata.items() if key not in ("kind", "format", "layout")},
        **({"description": " ".join(text.split())} if text.strip() else {}),
        "backbone": backbone,
        "fingerprint": model.fingerprint,
        "imported": origin(path, foreign, error, sha256),
    }
    write_adapter(out, AdapterFile(layout, flat_P, metadata), model, FORMATS["safetensors"])
    return ImportedAdapter(metadata, tuple(import_lines(path, foreign, layout.rank, error, model)))


def weights_hash(path: Path) -> str:
    """Return the SHA-256 of the file with an adapter's parameters; "" if it does not exist."""
    files = (path, *(path / name for name in (peft.WEIGHTS, peft.OLD_WEIGHTS, *FOLDER_FILES)))
    return next((file_hash(file) for file in files if file.is_file()), "")


def origin(path: Path, foreign: ForeignAdapter, error: float, sha256: str) -> dict[str, Any]:
    """Return the provenance of an adapter for a file's metadata. It never contains a path of this machine.

    sha256: its `weights_hash` before it was read. Raises BadFile if the file has changed since.
    """
    if weights_hash(path) != sha256:
        raise BadFile(f"{path} was changed while it was read", "run the same command again")
    source: dict[str, Any] = {"format": foreign.format, "name": path.resolve().name, "rank": foreign.rank}
    if sha256:
        source["sha256"] = sha256
    return {**source, "error": float(f"{error:.3g}")}


def import_lines(path: Path, foreign: ForeignAdapter, rank: int, error: float, model: Model) -> list[str]:
    """Describe an import in lines of text: the format, the rank, the loss, and the weights the adapter is for."""
    kept = "lossless" if error < 1e-6 else f"the update changes by {100 * error:.2g} %"
    own = "the backbone's weights" if foreign.fingerprint == model.fingerprint else "unknown weights (no fingerprint)"
    return [
        f"read       {path} ({foreign.format})",
        f"rank       {foreign.rank} -> {rank}, {kept}",
        f"made for   {own}",
    ]
