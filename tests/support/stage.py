"""The toys, their recipe and the tiny backbone without pytest's fixtures: for tests and tools that start processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parents[1]


def installed_tiny(folder: Path) -> None:
    """Put the third-party backbone `tiny` onto the import path, as a distribution."""
    from distributions import install

    folder.mkdir()
    install(folder, "sglora-tiny", "sglora_tiny", (HERE / "thirdparty/sglora_tiny.py").read_text())
    sys.path.insert(0, str(folder))


def toys_and_recipe(folder: Path, changes: Mapping[str, str]) -> tuple[Path, Path]:
    """(data folder, recipe file), written into a folder; the recipe with some texts changed."""
    from toys import RECIPE, write_toys

    text, recipe = RECIPE, folder / "toys.toml"
    for before, after in changes.items():
        text = text.replace(before, after)
    recipe.write_text(text)
    return write_toys(folder), recipe
