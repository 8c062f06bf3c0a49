"""`sglora settings`: shows and changes settings. Values are checked before they are written."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import click

from sglora_cli.cli import completion
from sglora_cli.cli.group import Group
from sglora_cli.cli.options import App, json_option
from sglora_cli.cli.output import echo, print_json, print_rows, say
from sglora_cli.config import OneOf
from sglora_cli.errors import Unavailable, UsageError
from sglora_cli.files.escape import printable
from sglora_cli.pack.library import Library
from sglora_cli.plugin.host import Host
from sglora_cli.system import paths, settings
from sglora_cli.system.paths import expanded
from sglora_cli.system.settings import check_key, write_setting

_KEY = OneOf("setting", [spec.name for spec in fields(settings.Settings)])


@click.group("settings", cls=Group, invoke_without_command=True)
@json_option()
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show and change settings.

    Without a subcommand, this command shows all settings and where each value comes from.

    Command-line options take precedence over environment variables, then the settings file, then defaults.

    \b
    sglora settings
    sglora settings set pack toys
    sglora settings unset pack
    """
    if context.invoked_subcommand is None:
        _print_settings(as_json)


def _print_settings(as_json: bool) -> None:
    in_force, path = settings.current(), paths.settings_file()
    if as_json:
        print_json({"file": str(path), "settings": {key: asdict(one) for key, one in in_force.items()}})
        return
    echo(f"file {path}{'' if path.exists() else ' (does not exist yet)'}")
    cells = [[key, printable(one.value) or "-", _origin(key, one.origin)] for key, one in in_force.items()]
    print_rows(("setting", "value", "from"), cells)


def _origin(key: str, origin: str) -> str:
    return settings.variable(key) if origin == "environment" else origin


@command.command("set")
@click.argument("key", metavar="KEY", type=_KEY)
@click.argument("value", shell_complete=completion.names(completion.setting_values))
@json_option()
@click.pass_obj
def set_(app: App, key: str, value: str, as_json: bool) -> None:
    """Write KEY = VALUE to the settings file.

    VALUE must name something that exists. Comments in the file are preserved.

    \b
    sglora settings set pack starter
    sglora settings set data ~/data
    sglora settings set device cpu
    """

    _print_change(key, str(put(app.host, key, value)), as_json)


@command.command("unset")
@click.argument("key", metavar="KEY", type=_KEY)
@json_option()
def unset(key: str, as_json: bool) -> None:
    """Remove KEY from the settings file.

    \b
    sglora settings unset pack
    """

    _print_change(key, str(drop(key)), as_json)


def _print_change(key: str, path: str, as_json: bool) -> None:
    now = settings.current()[key]
    if now.origin == "environment":
        say(f"warning: the environment variable {settings.variable(key)} takes precedence: {now.value!r}")
    if as_json:
        print_json({"file": path, "key": key, **asdict(now)})
    else:
        echo(f"{key} = {now.value or '-'} ({_origin(key, now.origin)})")


def put(host: Host, key: str, value: str) -> Path:
    """Set a value and return the settings file.

    Raises UnknownName for an unknown key or value, Unavailable for a missing file or device, and UsageError for an
    empty value.
    """
    check_key(key)
    return write_setting(key, _checked(host, key, value))


def drop(key: str) -> Path:
    """Remove a setting and return the settings file. Raises UnknownName."""
    check_key(key)
    return write_setting(key, None)


def _checked(host: Host, key: str, value: str) -> str:
    """Return the value to write. Paths become absolute, because commands run in any folder."""
    if not value or "\n" in value:
        raise UsageError(f"{key} must be a non-empty string on one line, got {value!r}", f"sglora settings unset {key}")
    if key in ("data", "weights"):
        path = expanded(value).absolute()
        if key == "data" and not path.is_dir():
            raise Unavailable.no_folder(path, remedy="set data to an existing folder")
        if not path.exists():
            raise Unavailable.missing(path, remedy="set weights to an existing file or folder")
        return str(path)
    if key == "pack":
        location, _ = Library(host.recipe_folders).find(value)
        return str(location.folder.absolute()) if location.origin == "folder" else value
    if key == "device":
        from sglora_cli.system.hardware import pick_device

        pick_device(value)
    elif key == "backbone":
        host.backbones[value]
    elif key == "executor":
        host.executors[value]
    else:
        host.generators[value]
    return value
