"""Every command of the program."""

from __future__ import annotations

import click

from sglora_cli.cli.main import main


def commands(group: click.Group = main, path: tuple[str, ...] = ()):
    """Every command that does something, with its path: ("pack", "show")."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield (*path, name), command
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command
