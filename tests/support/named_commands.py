"""What a text of the program names: its commands and options. Each is checked against the commands that there are.

A value that is filled in at run time is written as `HOLE` when a text is read from the source.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence

import click

from sglora_cli.cli.main import COMMANDS, main

HOLE = "\u2026"
_OTHERS = re.compile(r"\b(pip install|hf download|ssh-keygen|iconv|unset|export|ray start)\b[^`;]*")
"""Commands of other programs, with their options."""
_QUOTED = re.compile(r"`sglora( [^`]*)?`")
_BARE = re.compile(r"\bsglora((?: (?:\"[^\"]*\"|'[^']*'|[^\s,;`'\"()#]+))+)")
_OPTION = re.compile(r"(?<![\w/-])--[a-z][a-z-]*[a-z]")
_ELSEWHERE = {"--params", "--help", "--version"}
"""Options of CLIP-LoRA's trainer, and of click."""
_JOINS = {"&&", "|"}


def faults(text: str, words: Sequence[str] = ()) -> list[str]:
    """Return what a user could not do as the text says. words: the command line that printed it, if known."""
    text, wrong = _OTHERS.sub(" ", text), []
    for command in commands_in(text):
        wrong += [f"{' '.join(command)}: {fault}" for fault in command_faults(command)]
    rest = _BARE.sub(" ", _QUOTED.sub(" ", text))
    for match in _OPTION.finditer(rest):
        before = rest[: match.start()].split()
        named = next((n for n in (2, 1) if before[-n:] and _command(before[-n:])), 0)
        known = _options(before[-named:]) if named else _options(words) if words else _all_options()
        if match.group() not in known | _ELSEWHERE:
            wrong.append(f"{match.group()}: no such option of {' '.join(before[-named:] if named else words) or 'any'}")
    return wrong


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the words of every command of the program in a text."""
    for match in _QUOTED.finditer(text):
        yield _words(match[1] or "")
    for match in _BARE.finditer(_QUOTED.sub(" ", text)):
        words = _words(match[1])
        first = words[0].rstrip(":.") if words else ""
        if first in COMMANDS or difflib.get_close_matches(first, COMMANDS, n=1, cutoff=0.85):
            yield words


def command_faults(words: Sequence[str]) -> list[str]:
    """Return why these words after `sglora` are not a complete command."""
    # With the settings of `main`, because click keeps the help option of the first context of a command.
    context = click.Context(main, info_name="sglora", **main.context_settings)
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        found = command.get_command(context, name)
        if found is None:
            return [] if name == HOLE else [f"no command {name!r}"]
        command, context = found, click.Context(found, context, name)
    if isinstance(command, click.Group):
        return [] if rest in ([], ["--help"]) else ["no command in the group"]
    if "--help" in rest or any(HOLE * 2 in word for word in rest):  # the end of the command is filled in
        return []
    try:
        values, _, _ = command.make_parser(context).parse_args(rest)
    except click.UsageError as error:
        return [error.format_message()]
    given = {name for name, value in values.items() if value and isinstance(value, str | tuple)}
    faults = [f"{p.human_readable_name} is missing" for p in command.params if p.required and p.name not in given]
    for param in command.params:
        value = values.get(param.name or "")
        if isinstance(param.type, click.Choice) and isinstance(value, str) and not {HOLE, value.upper()} & {value}:
            try:
                param.type.convert(value, param, context)
            except click.UsageError as error:
                faults.append(error.format_message())
    return faults


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    end = next((n for n, word in enumerate(words) if word in _JOINS), len(words))
    return words[:end]


def _command(words: Sequence[str]) -> click.Command | None:
    """Return the command that these words begin with, if it is none that has others below it."""
    context, command = click.Context(main, info_name="sglora"), main
    for word in words:
        found = command.get_command(context, word.strip("`")) if isinstance(command, click.Group) else None
        if found is None:
            return None if isinstance(command, click.Group) else command
        command = found
    return None if isinstance(command, click.Group) else command


def _options(words: Sequence[str]) -> set[str]:
    command = _command(words)
    params = command.params if command else main.params
    return {name for param in params for name in (*param.opts, *param.secondary_opts)} if command else _all_options()


def _all_options() -> set[str]:
    return {name for command in leaves(main) for p in command.params for name in (*p.opts, *p.secondary_opts)}


def leaves(command: click.Command) -> Iterator[click.Command]:
    """Yield every command that is no group."""
    if not isinstance(command, click.Group):
        yield command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        if found := command.get_command(context, name):
            yield from leaves(found)
