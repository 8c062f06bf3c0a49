"""Distributions with one entry point, as pip would leave them in a folder."""

from __future__ import annotations

import importlib
from pathlib import Path

HERE = Path(__file__).parents[1]


def install(folder: Path, name: str, module: str, source: str) -> None:
    """A distribution `name` with one entry point, as pip would leave it in `folder`."""
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sglora]\n{name} = {module}\n")
    importlib.invalidate_caches()  # a folder's list is kept by its time, which may not have moved since it was read
