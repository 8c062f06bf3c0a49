"""Where packs lie: those that were built, and the bundled one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import sglora_packs

BUNDLED = Path(sglora_packs.__file__).parent / "starter"


def built_packs(home: Path) -> list[str]:
    """Names of everything in the folder of built packs, drafts too."""
    return sorted(os.listdir(home / "cache/packs"))


def without(pack: Path, *files: str) -> None:
    """Make a pack one that never had these files."""
    manifest = json.loads((pack / "pack.json").read_text())
    for file in files:
        del manifest["files"][file]
        (pack / file).unlink()
    (pack / "pack.json").write_text(json.dumps(manifest))
