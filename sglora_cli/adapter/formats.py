"""Output formats of adapters, and checks of output paths. No torch at import time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.errors import UnknownName, UsageError
from sglora_cli.files.atomic import check_free
from sglora_cli.files.escape import shell_word


@dataclass(frozen=True)
class Format:
    """An output format. suffix: the file's suffix, "" for a folder."""

    name: str
    suffix: str
    tolerance: float
    """The largest relative Frobenius error of the update after writing and reading it back."""


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
"""The formats in config.ADAPTER_FORMATS."""
_BY_SUFFIX = {".safetensors": "safetensors", ".pt": "clip-lora", "": "peft"}


def format_of(target: str | Path, name: str = "") -> Format:
    """Return the format `name`, or without a name the format of the suffix of `target` (`x/` is a folder).

    Raises UnknownName for an unknown name, UsageError for an unknown suffix or one of another format.
    """
    if name and name not in FORMATS:
        raise UnknownName.of("format", name, FORMATS)
    path = Path(target)
    if not name and str(target).endswith("/"):
        name = "peft"
    if not name and path.suffix not in _BY_SUFFIX:
        raise UsageError(
            f"the suffix of an adapter file must be .safetensors, got {path}",
            f"try -o {shell_word(path.with_suffix('.safetensors'))}",
        )
    format = FORMATS[name or _BY_SUFFIX[path.suffix]]
    if format.suffix and path.suffix != format.suffix:
        raise UsageError(
            f"the suffix of format {format.name!r} must be {format.suffix}, got {path}",
            f"try -o {shell_word(path.with_suffix(format.suffix))}",
        )
    return format


def check_target(path: Path, format: Format, force: bool) -> None:
    """Raise UsageError if `path` exists. With `force`, raise it only if `path` is not an adapter.

    A folder is an adapter if it contains only files of an adapter.
    """
    check_free(path, force, folder=format.suffix == "")
    if not path.is_dir():
        return
    from sglora_cli.adapter.peft import FILES

    if strangers := {p.name for p in path.iterdir()} - FILES:
        raise UsageError(f"{path} has files that do not belong to an adapter: {min(strangers)}", "choose another name")
