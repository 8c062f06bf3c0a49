"""The questions a plugin is asked. Hooks take no arguments and return lists of named values.

A plugin is an entry point in group `sglora` whose module has functions of these names marked
with `sglora_cli.api.hookimpl`. Nothing heavy may happen when the module is imported or asked.
"""

from __future__ import annotations

from pathlib import Path

import pluggy

from sglora_cli.plugin.contracts import Backbone, Captioner, Dataset, Generator, Reporter

PROJECT = "sglora"
GROUP = "sglora"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def sglora_backbones() -> list[Backbone]:  # type: ignore[empty-body]
    """Frozen image-text models."""


@hookspec
def sglora_datasets() -> list[Dataset]:  # type: ignore[empty-body]
    """Where tasks come from."""


@hookspec
def sglora_captioners() -> list[Captioner]:  # type: ignore[empty-body]
    """Models that write captions of images."""


@hookspec
def sglora_generators() -> list[Generator]:  # type: ignore[empty-body]
    """Ways from a pack and a prior to adapters."""


@hookspec
def sglora_reporters() -> list[Reporter]:  # type: ignore[empty-body]
    """Ways to print measured rows."""


@hookspec
def sglora_recipes() -> list[Path]:  # type: ignore[empty-body]
    """Folders of recipe files (`NAME.toml`) and of bundled packs (`NAME/pack.json`)."""
