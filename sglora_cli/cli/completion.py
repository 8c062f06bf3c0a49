"""Names that a shell completes: packs, recipes, generators ... Nothing here loads torch, and nothing here fails.

What a parameter takes follows from its name, in one command or in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial

import click
from click.shell_completion import CompletionItem

from sglora_cli.config import DEVICES
from sglora_cli.pack.library import Library
from sglora_cli.plugin.host import Host

Source = Callable[[click.Context], Iterable[str]]


@cache
def _host() -> Host:
    return Host.load()


def _packs(context: click.Context) -> list[str]:
    return [location.name for location in Library(_host().recipe_folders).packs()]


def _recipes(context: click.Context) -> list[str]:
    return list(Library(_host().recipe_folders).recipes())


def _tasks(role: str, context: click.Context) -> list[str]:
    """Keys of the tasks of the pack that is named before, or taken by default."""
    named = context.params.get("pack") or context.params.get("name") or ""
    location, _ = Library(_host().recipe_folders).find(str(named))
    return [str(task["key"]) for task in location.summary().get("tasks", []) if task.get("role") == role]


def _values(context: click.Context) -> Iterable[str]:
    source = _EVERYWHERE.get(str(context.params.get("key")))
    return source(context) if source else ()


_EVERYWHERE: dict[str, Source] = {
    "pack": _packs,
    "on": _packs,
    "recipe": _recipes,
    "backbone": lambda context: _host().backbones,
    "generator": lambda context: _host().generators,
    "dataset": lambda context: _host().datasets,
    "captioner": lambda context: _host().captioners,
    "reporter": lambda context: _host().reporters,
    "baselines": lambda context: ["all", "paper", *_host().generators],
    "tasks": partial(_tasks, "unseen"),
    "expert": partial(_tasks, "expert"),
    "device": lambda context: DEVICES,
    "value": _values,
}
_IN: dict[str, Source] = {
    "plugins check name": lambda context: _host().backbones,
    "pack show name": _packs,
    "pack verify name": _packs,
    "pack export name": _packs,
    "pack remove name": _packs,
    "data fetch name": lambda context: _host().datasets,
    "inspect thing": lambda context: [*_packs(context), *_recipes(context)],
}
_LISTS = {"baselines", "tasks"}
"""Names with commas: the last one is completed."""
_FILES = {"adapter", "out", "recipe", "thing"}
"""A file will do as well."""


def attach(command: click.Command, path: str) -> None:
    """Give the parameters of a command, and of its subcommands, the names they take. `path` is "pack show"."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            attach(inner, f"{path} {name}")
    for parameter in command.params:
        source = _IN.get(f"{path} {parameter.name}") or _EVERYWHERE.get(str(parameter.name))
        takes_text = parameter.type is click.STRING  # others, paths among them, complete themselves
        if takes_text and (source or parameter.name in _FILES):
            parameter._custom_shell_complete = partial(_items, source)


def _items(
    source: Source | None, context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    before, comma, last = incomplete.rpartition(",") if parameter.name in _LISTS else ("", "", incomplete)
    try:
        names = sorted(source(context)) if source else []
    except Exception:  # a broken settings file or plugin is no reason to disturb who is typing
        names = []
    found = [CompletionItem(f"{before}{comma}{name}") for name in names if name.startswith(last)]
    return [*found, CompletionItem(incomplete, type="file")] if parameter.name in _FILES else found
