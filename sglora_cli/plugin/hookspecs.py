"""The hooks of a plugin. Hooks take no arguments and return lists of named values.

A plugin is an entry point in group `sglora` whose module defines some of these functions, marked
with `sglora_cli.api.hookimpl`. Importing the module and calling its hooks must be fast.
"""

from __future__ import annotations

from pathlib import Path

import pluggy

from sglora_cli.plugin.contracts import Backbone, Captioner, Dataset, Executor, Generator, Reporter

PROJECT = "sglora"
GROUP = "sglora"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def sglora_backbones() -> list[Backbone]:  # type: ignore[empty-body]
    """Return frozen image-text models."""


@hookspec
def sglora_datasets() -> list[Dataset]:  # type: ignore[empty-body]
    """Return data sets, the sources of tasks."""


@hookspec
def sglora_captioners() -> list[Captioner]:  # type: ignore[empty-body]
    """Return models that write captions of images."""


@hookspec
def sglora_generators() -> list[Generator]:  # type: ignore[empty-body]
    """Return generators, which make adapters from a pack and a prior."""


@hookspec
def sglora_reporters() -> list[Reporter]:  # type: ignore[empty-body]
    """Return reporters, which print measured rows."""


@hookspec
def sglora_executors() -> list[Executor]:  # type: ignore[empty-body]
    """Return executors, which run the steps of builds and measurements."""


@hookspec
def sglora_recipes() -> list[Path]:  # type: ignore[empty-body]
    """Return folders of recipe files (`NAME.toml`) and of bundled packs (`NAME/pack.json`)."""
