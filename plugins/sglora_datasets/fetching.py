"""Downloads of the data sets that torchvision knows: its classes say where the archives are and which checksums they
have; getting, checking and unpacking them is done here, so that it goes on where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sglora_cli.api import Unavailable

from .downloads import Remote, downloaded
from .unpacking import unpacked

ARCHIVES = (".zip", ".tar.gz", ".tgz")


def fetched(
    kind: str,
    data: Path,
    folder: str,
    note: Callable[[str], None],
    parts: tuple[str, ...] = (),
    captions: bool = True,
) -> Path:
    """Download torchvision's data set `kind` into a folder below `data`; returns that folder.

    captions: whether its user has to write them. Nothing is done if all `parts` are there; a file that is there is
    not downloaded again, nor an archive that was unpacked. Raises Unavailable, BadFile.
    """
    root = data / folder
    if parts and all((root / part).exists() for part in parts):
        note(f"{root} is there")
        return root
    remotes = remotes_of(kind)
    within = data if getattr(_datasets(), kind).__dict__.get("base_folder") == folder else root  # its archive brings it
    for remote in remotes:
        fetch_one(remote, root, within, note)
    if captions:
        note("captions.jsonl is not part of it: `sglora data caption` writes it")
    return root


def fetch_one(
    remote: Remote,
    root: Path,
    within: Path,
    note: Callable[[str], None],
    wanted: Callable[[str], bool] = lambda name: True,
) -> None:
    """Download a file into root; an archive is unpacked into `within` and leaves a mark in its place."""
    mark = root / f".{remote.name}.unpacked"
    if mark.exists():
        note(f"{remote.name} was unpacked before")
        return
    path = downloaded(remote, root, note)
    if path.name.endswith(ARCHIVES):
        note(f"unpacking {path.name}")
        unpacked(path, within, wanted)
        mark.touch()
        path.unlink()


def remotes_of(kind: str) -> list[Remote]:
    """What torchvision's class publishes. Raises Unavailable if this torchvision says it in another way."""
    source: Any = getattr(_datasets(), kind, None)
    try:
        if hasattr(source, "_RESOURCES"):
            return [Remote(url, md5) for url, md5 in source._RESOURCES]
        if hasattr(source, "_file_dict"):
            return [Remote(source._download_url_prefix + name, md5) for name, md5 in source._file_dict.values()]
        return [Remote(source.url, source.tgz_md5)]
    except (AttributeError, TypeError, ValueError):
        raise Unavailable(f"this torchvision does not say where {kind} is", "pip install -U torchvision") from None


def _datasets() -> Any:
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: one built for another torch
        raise Unavailable(f"torchvision cannot be used: {error}", "pip install torchvision") from None
    return datasets
