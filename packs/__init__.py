"""The bundled recipes and packs: a plugin like any other. NAME.toml is a recipe, NAME/ a pack."""

from __future__ import annotations

from pathlib import Path

from sglora_cli.api import hookimpl

SGLORA_API = "1.0"


@hookimpl
def sglora_recipes() -> list[Path]:
    return [Path(__file__).parent]
