"""The formats that an adapter is written in, and whether a place is free for one. No torch at import time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.errors import UnknownName, UsageError
from sglora_cli.files.atomic import check_free


@dataclass(frozen=True)
class Format:
    """One way to write an adapter. suffix: that of its file, "" for a folder."""

    name: str
    suffix: str
    tolerance: float
    """Relative Frobenius error of the update that writing and reading back may cost."""


FORMATS: Mapping[str, Format] = {
    f.name: f
    for f in (
        Format("safetensors", ".safetensors", 0.0),
        Format("peft", "", 0.0),
        Format("peft-flat", "", 0.0),
        Format("open_clip", ".safetensors", 1e-3),
        Format("clip-lora", ".pt", 1e-6),
    )
}
"""Those of config.ADAPTER_FORMATS."""
_BY_SUFFIX = {".safetensors": "safetensors", ".pt": "clip-lora", "": "peft"}


def format_of(target: str | Path, name: str = "") -> Format:
    """The format called `name`; without a name, the one that the suffix of `target` implies (`x/` is a folder).

    Raises UnknownName for an unknown name, UsageError for a suffix of no format or of another one.
    """
    if name and name not in FORMATS:
        raise UnknownName.of("format", name, FORMATS)
    path = Path(target)
    if not name and str(target).endswith("/"):
        name = "peft"
    if not name and path.suffix not in _BY_SUFFIX:
        raise UsageError(
            f"an adapter is written as .safetensors, got {path}", f"try -o {path.with_suffix('.safetensors')}"
        )
    format = FORMATS[name or _BY_SUFFIX[path.suffix]]
    if format.suffix and path.suffix != format.suffix:
        raise UsageError(
            f"format {format.name!r} is written as {format.suffix}, got {path}",
            f"try -o {path.with_suffix(format.suffix)}",
        )
    return format


def check_target(path: Path, format: Format, force: bool) -> None:
    """Raises UsageError if `path` exists. With `force` it may exist, if it is an adapter.

    A folder is an adapter if it contains only the files of one.
    """
    check_free(path, force, folder=format.suffix == "")
    if not path.is_dir():
        return
    from sglora_cli.adapter.peft import FILES

    if strangers := {p.name for p in path.iterdir()} - FILES:
        raise UsageError(f"{path} has files that are not an adapter's: {min(strangers)}", "choose another name")
