"""`sglora list`: lists the user's adapters."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from sglora_cli.cli.options import PATH, json_option
from sglora_cli.cli.output import print_json, print_rows, say
from sglora_cli.errors import UsageError


@click.command("list")
@click.argument("folders", nargs=-1, type=PATH, metavar="[FOLDER]...")
@json_option()
def command(folders: tuple[Path, ...], as_json: bool) -> None:
    """List your adapters with their sentences.

    The newest come first. By default the command lists the adapters in the user cache, where `sglora generate` without
    -o writes, and in the working folder. With FOLDER it lists those in each FOLDER instead. Other commands accept the
    listed names.

    \b
    sglora list
    sglora list adapters/ --json
    """
    from sglora_cli.adapter.library import kept_folder, listed

    for folder in folders:
        if not folder.is_dir():
            raise UsageError.no_folder(folder, "the folder ", "omit it to list the user cache and the working folder")
    adapters = listed(folders or (kept_folder(), Path()))
    if as_json:
        rows = [
            {
                "name": one.call,
                "path": str(one.path.absolute()),
                "description": one.say("description") or None,
                "generator": one.say("generator") or None,
                "pack": one.say("pack") or None,
                "backbone": one.say("backbone") or None,
                "written": _time(one.changed),
            }
            for one in adapters
        ]
        print_json({"adapters": rows})
        return
    cells = [
        [one.call, one.say("description"), one.say("generator") or "another program", one.say("backbone")]
        for one in adapters
    ]
    print_rows(("adapter", "sentence", "generator", "backbone"), cells, words=("sentence",))
    if not adapters:
        say('no adapters yet; make one with: sglora generate "a photo of a pug"')


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
