"""Adapters of other programs become files of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.adapter.file import AdapterFile
from sglora_cli.adapter.foreign import ForeignAdapter
from sglora_cli.adapter.read import provenance, read_adapter, recognise
from sglora_cli.adapter.write import FORMATS, check_target, format_of, write_adapter
from sglora_cli.config import RuntimeConfig
from sglora_cli.files.hashes import file_hash
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.host import Host
from sglora_cli.system import settings


@dataclass(frozen=True)
class ImportedAdapter:
    """What was written, and what a person should know about it."""

    about: dict[str, Any]
    lines: tuple[str, ...]


def import_adapter(
    host: Host,
    thing: Path,
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
    """Read an adapter for a backbone and write it as our file, with the backbone's fingerprint and its origin.

    backbone: else the one that the file names, else the settings'. Raises what `read_adapter` and
    `write_adapter` raise; nothing is written then.
    """
    check_target(out, format_of(out, "safetensors"), force)
    recognise(thing)  # a file that is none is refused before weights are loaded
    stated = provenance(thing).get("backbone")
    backbone = backbone or (stated if isinstance(stated, str) else settings.load().backbone)
    model = host.backbones[backbone].load(settings.runtime(runtime, backbone, exact=True))
    foreign = read_adapter(thing, model, alpha=alpha, rank=rank, visual_only=visual_only)
    layout = foreign.layout(model.sites, rank)
    flat_P, error = foreign.fitted(layout)
    about = {
        **{key: value for key, value in foreign.about.items() if key not in ("kind", "format", "layout")},
        **({"description": " ".join(text.split())} if text.strip() else {}),
        "backbone": backbone,
        "fingerprint": model.fingerprint,
        "imported": origin(thing, foreign, error),
    }
    write_adapter(out, AdapterFile(layout, flat_P, about), model, FORMATS["safetensors"])
    return ImportedAdapter(about, tuple(said(thing, foreign, layout.rank, error, model)))


def origin(thing: Path, foreign: ForeignAdapter, error: float) -> dict[str, Any]:
    """Where an adapter came from, for a file's provenance: never a path of this machine."""
    found: dict[str, Any] = {"format": foreign.format, "name": thing.resolve().name, "rank": foreign.rank}
    weights = thing / "adapter_model.safetensors" if thing.is_dir() else thing
    if weights.is_file():
        found["sha256"] = file_hash(weights)
    return {**found, "error": float(f"{error:.3g}")}


def said(thing: Path, foreign: ForeignAdapter, rank: int, error: float, model: Model) -> list[str]:
    """Lines for a person: format, rank, what was lost, whose weights it was made for."""
    kept = "nothing is lost" if error < 1e-6 else f"the update changes by {100 * error:.2g} %"
    own = "the backbone's own" if foreign.fingerprint == model.fingerprint else "unknown: the file has none"
    return [
        f"read       {thing} ({foreign.format})",
        f"rank       {foreign.rank} -> {rank}: {kept}",
        f"made for   weights {own}",
    ]
