"""`sglora settings`: what is set once, and where it comes from."""

from __future__ import annotations

from dataclasses import asdict

import click

from sglora_cli import settings
from sglora_cli.cli import App, say
from sglora_cli.printing import print_json, print_rows, printable


@click.group("settings", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show every setting and where it comes from; change those in the settings file.

    An option of a command comes before the environment, the environment before the file, the file before the default.

    \b
    sglora settings
    sglora settings set pack toys
    sglora settings unset pack
    """
    if context.invoked_subcommand is None:
        _show(as_json)


def _show(as_json: bool) -> None:
    found, path = settings.found(), settings.settings_file()
    if as_json:
        print_json({"file": str(path), "settings": {key: asdict(one) for key, one in found.items()}})
        return
    click.echo(f"file {path}{'' if path.exists() else ' (not there yet)'}")
    cells = [[key, printable(one.value) or "-", _origin(key, one.origin)] for key, one in found.items()]
    print_rows(("setting", "value", "from"), cells)


def _origin(key: str, origin: str) -> str:
    return settings.variable(key) if origin == "environment" else origin


@command.command("set")
@click.argument("key")
@click.argument("value")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def set_(app: App, key: str, value: str, as_json: bool) -> None:
    """Write KEY = VALUE into the settings file, if VALUE is something that exists. Comments in the file stay.

    \b
    sglora settings set pack starter
    sglora settings set data ~/data
    sglora settings set device cpu
    """
    from sglora_cli import preferences

    _say_changed(key, str(preferences.put(app.host, key, value)), as_json)


@command.command("unset")
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def unset(key: str, as_json: bool) -> None:
    """Take KEY out of the settings file.

    \b
    sglora settings unset pack
    """
    from sglora_cli import preferences

    _say_changed(key, str(preferences.drop(key)), as_json)


def _say_changed(key: str, path: str, as_json: bool) -> None:
    now = settings.found()[key]
    if now.origin == "environment":
        say(f"warning: {settings.variable(key)} is set and comes first: {now.value!r}")
    if as_json:
        print_json({"file": path, "key": key, **asdict(now)})
    else:
        click.echo(f"{key} = {now.value or '-'} ({_origin(key, now.origin)})")
