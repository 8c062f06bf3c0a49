"""Command groups with full summaries, suggestions for misspelt commands, and options of every command."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

import click

from sglora_cli.errors import UsageError
from sglora_cli.system import progress


class Group(click.Group):
    """A group whose summaries are never truncated. Each of its commands accepts --quiet."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        super().add_command(completed(cmd), name)

    def summaries(self, ctx: click.Context) -> dict[str, str]:
        """Return the group's commands and the first sentence of each one's help."""
        listed = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        return {name: command.get_short_help_str(1000) for name, command in listed if command}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries(ctx).items()))

    def resolve_command(self, ctx: click.Context, args: list[str]):  # type: ignore[no-untyped-def]
        """Resolve a command as click does. Raises UsageError with the closest command for an unknown name."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            path = words_of(ctx)
            hint = " or ".join(repr(" ".join([*path, close])) for close in self._closest(ctx, name))
            raise UsageError(
                f"no command named {' '.join([*path, name])!r}",
                f"did you mean {hint}?" if hint else see_help(ctx),
            )
        return super().resolve_command(ctx, args)

    def _closest(self, ctx: click.Context, name: str) -> list[str]:
        """Return commands with a similar name here, or with this name in a subgroup."""
        return difflib.get_close_matches(name, self.list_commands(ctx), n=1) or list(self._deeper(ctx, name))

    def _deeper(self, ctx: click.Context, name: str) -> Iterator[str]:
        for group in self.list_commands(ctx):
            command = self.get_command(ctx, group)
            if isinstance(command, click.Group) and name in command.list_commands(ctx):
                yield f"{group} {name}"


def words_of(ctx: click.Context) -> list[str]:
    """Return the words that call the context's command, without the program's name, such as ["pack", "show"]."""
    return [] if ctx.parent is None else [*words_of(ctx.parent), ctx.info_name or ""]


def see_help(ctx: click.Context) -> str:
    """Return a hint with the help command of the context."""
    return f"see `{' '.join(['sglora', *words_of(ctx)])} --help`"


_UNBROKEN = "\u2011"
"""A non-breaking hyphen."""


class Formatter(click.HelpFormatter):
    """Help text that breaks lines only between words, so that names with hyphens can be copied."""

    def write_text(self, text: str) -> None:
        super().write_text(text.replace("-", _UNBROKEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(name, text.replace("-", _UNBROKEN)) for name, text in rows], col_max, col_spacing)

    def write(self, string: str) -> None:
        super().write(string.replace(_UNBROKEN, "-"))


class Context(click.Context):
    """A context that formats help with Formatter."""

    formatter_class = Formatter


def completed(command: click.Command) -> click.Command:
    """Return the command with --quiet and help without broken words, like all commands."""
    command.context_class = Context
    if not any(option.name == "quiet" for option in command.params):
        command.params.append(quiet_option())
    return command


def quiet_option() -> click.Option:
    return click.Option(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=_quieten,
        help="Hide progress and notes, but not warnings and errors.",
    )


def _quieten(ctx: click.Context, parameter: click.Parameter, quiet: bool) -> None:
    if quiet:
        progress.be_quiet()
