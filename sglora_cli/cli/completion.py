"""Where a shell's names come from: packs, recipes, generators ... Nothing here loads torch, and nothing here fails.

An option or argument says `shell_complete=names(packs)`. Packs and plugins are read when a shell asks, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from sglora_cli.config import DEVICES
from sglora_cli.plugin.values import EXPERT, UNSEEN

if TYPE_CHECKING:
    from sglora_cli.pack.library import Library
    from sglora_cli.plugin.host import Host

Source = Callable[[click.Context], Iterable[str]]
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names(source: Source, *, commas: bool = False, files: bool = False) -> Completer:
    """What click asks for the names of a source. With `commas` the last of a list is completed; with `files` the shell
    offers files, too."""

    def items(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",") if commas else ("", "", incomplete)
        try:
            known = sorted(source(context))
        except Exception:  # a broken settings file or plugin is no reason to disturb who is typing
            known = []
        offered = [CompletionItem(f"{before}{comma}{name}") for name in known if name.startswith(last)]
        return [*offered, CompletionItem(incomplete, type="file")] if files else offered

    return items


@cache
def _host() -> Host:
    """Not App's, which warns of broken plugins."""
    from sglora_cli.plugin.host import Host

    return Host.load()


def _library() -> Library:
    from sglora_cli.pack.library import Library

    return Library(_host().recipe_folders)


def packs(context: click.Context) -> Iterable[str]:
    return [location.name for location in _library().packs()]


def recipes(context: click.Context) -> Iterable[str]:
    return _library().recipes()


def packs_and_recipes(context: click.Context) -> Iterable[str]:
    return {*packs(context), *recipes(context)}


def backbones(context: click.Context) -> Iterable[str]:
    return _host().backbones


def datasets(context: click.Context) -> Iterable[str]:
    return _host().datasets


def captioners(context: click.Context) -> Iterable[str]:
    return _host().captioners


def generators(context: click.Context) -> Iterable[str]:
    return _host().generators


def reporters(context: click.Context) -> Iterable[str]:
    return _host().reporters


def baselines(context: click.Context) -> Iterable[str]:
    return ["all", "paper", *_host().generators]


def plugged(context: click.Context) -> Iterable[str]:
    """What plugins of any kind offer."""
    return {name for registry in _host().registries for name in registry}


def unseen_tasks(context: click.Context) -> Iterable[str]:
    return _tasks(context, UNSEEN)


def experts(context: click.Context) -> Iterable[str]:
    return _tasks(context, EXPERT)


def _tasks(context: click.Context, role: str) -> list[str]:
    """Keys of the tasks of the pack that the command line names, or else of the default pack."""
    location, _ = _library().find(str(context.params.get("pack") or context.params.get("name") or ""))
    return [task["key"] for task in location.tasks().of(role)]


def adapters(context: click.Context) -> Iterable[str]:
    """Those of the user cache."""
    from sglora_cli.adapter.library import kept_folder, listed

    return [one.path.name for one in listed([kept_folder()])]


def setting_values(context: click.Context) -> Iterable[str]:
    """Values of the setting that the command line names, where there are names for them."""
    sources: dict[str, Source] = {"pack": packs, "backbone": backbones, "generator": generators}
    key = str(context.params.get("key"))
    return sources[key](context) if key in sources else DEVICES if key == "device" else ()
