"""`sglora schema`: prints the JSON Schemas that programs may rely on."""

from __future__ import annotations

import click

from sglora_cli.cli import schemas
from sglora_cli.cli.output import echo, print_json


@click.command("schema", context_settings={"ignore_unknown_options": True})
@click.argument("name", metavar="[COMMAND]...", nargs=-1)
def command(name: tuple[str, ...]) -> None:
    """Print the JSON Schema of a command's --json output.

    Without COMMAND, the names of all schemas are printed. Later versions may add keys but do not remove any.

    \b
    sglora schema pack list
    sglora schema bench --dry-run
    sglora schema error
    """
    if name:
        print_json(schemas.schema(" ".join(name)))
    else:
        for one in schemas.SHAPES:
            echo(one)
