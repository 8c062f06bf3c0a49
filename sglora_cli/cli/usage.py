"""Turns click's usage errors into this project's errors with hints."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

import click

from sglora_cli.cli.group import see_help
from sglora_cli.errors import UsageError

_NOT_ONE = re.compile(r"'([^']*)' is not one of ")


def usage_error(error: click.ClickException, program: click.Group, words: Sequence[str]) -> UsageError:
    """Return the error with a hint, which is the closest valid name or the help of the command.

    program, words: the program and its arguments, for errors that have no click context.
    """
    context = getattr(error, "ctx", None) or called(program, words)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        message, hint = "a command is missing", ""
    elif isinstance(error, click.NoSuchOption):
        options = context.command.get_params(context)
        known = [flag for option in options if isinstance(option, click.Option) for flag in _flags(option)]
        message, hint = f"no option named {error.option_name!r}", _closest(error.option_name, known)
    else:
        text = " ".join(error.format_message().split()).removesuffix(".")
        message, hint = text[:1].lower() + text[1:], ""
        kind, unknown = getattr(getattr(error, "param", None), "type", None), _NOT_ONE.search(text)
        if isinstance(kind, click.Choice) and unknown:
            hint = _closest(unknown[1], map(str, kind.choices))
    return UsageError(message, hint or see_help(context))


def called(program: click.Group, words: Sequence[str]) -> click.Context:
    """Return the context of the command that the words of a command line call."""
    context = click.Context(program)
    for word in words:
        command = context.command
        if isinstance(command, click.Group) and (found := command.get_command(context, word)):
            context = click.Context(found, parent=context, info_name=word)
    return context


def _flags(option: click.Option) -> list[str]:
    return [*option.opts, *option.secondary_opts]


def _closest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"did you mean {close[0]!r}?" if close else ""
