"""Help for the tests of archives: a pack as a file, taken apart and put together again."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path


def packs(own_home: Path) -> list[str]:
    """Names in the folder of built packs, hidden ones too."""
    folder = own_home / "cache/packs"
    return os.listdir(folder) if folder.exists() else []


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {entry.filename: file.read(entry) for entry in file.infolist()}


def rezipped(path: Path, files: dict[str, bytes], *more: tuple[zipfile.ZipInfo, bytes]) -> Path:
    """Write an archive of these files, and of entries as they are."""
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
        for entry, data in more:
            file.writestr(entry, data)
    return path


def listed(contents: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    """The files with a pack.json that lists them as they are, but for the changes."""
    manifest = json.loads(contents["pack.json"])
    rest = {name: data for name, data in contents.items() if name != "pack.json"}
    manifest["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in rest.items()}
    return {"pack.json": json.dumps({**manifest, **changes}).encode(), **rest}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
