"""`sglora data`: data sets; its commands are in files of their own."""

from __future__ import annotations

import click

from sglora_cli.commands.data_check import check


@click.group("data")
def command() -> None:
    """Data sets: where tasks come from."""


command.add_command(check)
