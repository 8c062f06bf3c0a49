"""The plugin with the bundled recipes and packs. NAME.toml is a recipe, NAME/ is a pack."""

from __future__ import annotations

from pathlib import Path

from sglora_cli.api import hookimpl

SGLORA_API = "1.0"


@hookimpl
def sglora_recipes() -> list[Path]:
    return [Path(__file__).parent]
