"""Names for shell completion, such as packs, recipes and generators. Nothing here loads torch or raises.

Options and arguments use them as `shell_complete=names(packs)`. Packs and plugins are read only during completion.
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
    """Return a click completer for the names of a source.

    commas: complete the last name of a comma-separated list.  files: also complete file names.
    """

    def items(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",") if commas else ("", "", incomplete)
        try:
            known = sorted(source(context))
        except Exception:  # a broken settings file or plugin must not disturb typing
            known = []
        offered = [CompletionItem(f"{before}{comma}{name}") for name in known if name.startswith(last)]
        return [*offered, CompletionItem(incomplete, type="file")] if files else offered

    return items


@cache
def _host() -> Host:
    """Return a host without App's warnings about broken plugins."""
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


def executors(context: click.Context) -> Iterable[str]:
    return _host().executors


def baselines(context: click.Context) -> Iterable[str]:
    return ["all", "paper", *_host().generators]


def plugged(context: click.Context) -> Iterable[str]:
    """Return the names that plugins of any kind provide."""
    return {name for registry in _host().registries for name in registry}


def unseen_tasks(context: click.Context) -> Iterable[str]:
    return _tasks(context, UNSEEN)


def experts(context: click.Context) -> Iterable[str]:
    return _tasks(context, EXPERT)


def _tasks(context: click.Context, role: str) -> list[str]:
    """Return task keys of the pack on the command line, or else of the default pack."""
    location, _ = _library().find(str(context.params.get("pack") or context.params.get("name") or ""))
    return [task["key"] for task in location.tasks().of(role)]


def adapters(context: click.Context) -> Iterable[str]:
    """Return the names of adapters in the user cache."""
    from sglora_cli.adapter.library import kept_folder, listed

    return [one.path.name for one in listed([kept_folder()])]


def setting_values(context: click.Context) -> Iterable[str]:
    """Return possible values of the setting on the command line, if they have names."""
    sources: dict[str, Source] = {
        "pack": packs,
        "backbone": backbones,
        "generator": generators,
        "executor": executors,
    }
    key = str(context.params.get("key"))
    return sources[key](context) if key in sources else DEVICES if key == "device" else ()
