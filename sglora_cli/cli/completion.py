"""Names for shell completion, such as packs, recipes and generators. Nothing here loads torch or raises.

Options and arguments use them as `shell_complete=names(packs)`. Packs and plugins are read only during completion.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from sglora_cli.config import DEVICES
from sglora_cli.files.escape import shell_word
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
        fitting = [name for name in known if name.startswith(last) and name.isprintable()]
        offered = [CompletionItem(f"{before}{comma}{name}") for name in fitting]
        return [*offered, CompletionItem(incomplete, type="file")] if files else offered

    return items


class Bash(BashComplete):
    """Completion in bash, which inserts a name as it is, so that Enter would run a name like `x$(command)`.

    Unlike zsh and fish, bash quotes nothing. Names are therefore quoted here. Click's own script is safe, too: users
    may have installed it with an earlier version.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete "$1")
    while IFS=',' read -r type value; do
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done <<< "$response"
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def format_completion(self, item: CompletionItem) -> str:
        quoted = shell_word(item.value)
        if item.type != "plain" or quoted == item.value:
            return f"{item.type},{item.value}"
        # Nothing is safe after an open double quote, where bash also expands what is in single quotes.
        return "" if self._in_double_quotes() else f"plain,{quoted}"

    def _in_double_quotes(self) -> bool:
        """Whether the word to complete has a double quote. The script passes one word per line, as typed."""
        words = os.environ["COMP_WORDS"].split("\n")
        return '"' in "".join(words[int(os.environ["COMP_CWORD"]) :])


add_completion_class(Bash)


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
