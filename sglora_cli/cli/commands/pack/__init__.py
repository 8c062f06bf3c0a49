"""`sglora pack` with list, show and verify. The other commands have their own modules."""

from __future__ import annotations

from typing import Any

import click

from sglora_cli.cli.commands.pack.archive import export, import_, remove
from sglora_cli.cli.commands.pack.build import build
from sglora_cli.cli.commands.pack.experts import add
from sglora_cli.cli.commands.pack.init import init
from sglora_cli.cli.commands.pack.migrate import migrate
from sglora_cli.cli.commands.pack.pull import pull
from sglora_cli.cli.commands.pack.push import push
from sglora_cli.cli.commands.pack.recipes import recipes
from sglora_cli.cli.commands.pack.update import update
from sglora_cli.cli.group import Group
from sglora_cli.cli.options import App, json_option, pack_argument
from sglora_cli.cli.output import print_json, print_lines, print_rows
from sglora_cli.errors import BadFile


@click.group("pack", cls=Group)
def command() -> None:
    """Build, inspect, change and share packs.

    A pack contains experts and generators for one backbone. An expert is the mean and variance of the adapters of one
    task.

    \b
    sglora pack list
    sglora pack build RECIPE --data DIR
    """


for subcommand in (add, build, export, import_, init, migrate, pull, push, recipes, remove, update):
    command.add_command(subcommand)


@command.command("list")
@json_option()
@click.pass_obj
def list_(app: App, as_json: bool) -> None:
    """List the packs on this machine.

    An asterisk marks the default pack.

    \b
    sglora pack list
    """
    packs = app.library.packs()
    default = app.library.find()[0].name if packs else ""
    rows: list[dict[str, Any]] = [
        {"name": p.name, "origin": p.origin, "folder": str(p.folder), "default": p.name == default} for p in packs
    ]
    origins = []
    for row, location in zip(rows, packs, strict=True):
        row["backbone"] = location.summary().get("backbone", "unreadable")
        row["experts"] = location.experts()
        row["pulled_from"] = str(pulled) if (pulled := location.pulled_from) else None
        origins.append(pulled.short if pulled else location.origin)
    if as_json:
        print_json({"packs": rows})
    else:
        cells = [
            ["*" if r["default"] else " ", r["name"], r["backbone"], f"{r['experts']} experts", origin]
            for r, origin in zip(rows, origins, strict=True)
        ]
        print_rows(("", "pack", "backbone", "experts", "origin"), cells)


@command.command("show")
@pack_argument(required=False)
@json_option()
@click.pass_obj
def show(app: App, name: str, as_json: bool) -> None:
    """Describe PACK, or the default pack.

    With --json it prints the manifest with all tasks and the health of the generators.

    \b
    sglora pack show starter
    """
    from sglora_cli.cli.describe import pack_facts
    from sglora_cli.pack import health
    from sglora_cli.pack.origin import origins
    from sglora_cli.pack.pack import Pack

    pack = Pack(app.library.find(name)[0].folder)
    condition = health.report(app.host, pack)
    if as_json:
        pulled = next(map(str, origins(pack.folder)), None)
        print_json({**pack.manifest, "tasks": list(pack.tasks), "health": condition, "pulled_from": pulled})
    else:
        print_lines(pack_facts(pack, health.to_lines(condition)))


@command.command("verify")
@pack_argument(required=False)
@json_option()
@click.pass_obj
def verify(app: App, name: str, as_json: bool) -> None:
    """Compare every file of a pack with its hash in pack.json.

    Without PACK it verifies the default pack. The exit code is 4 if a file differs.

    \b
    sglora pack verify starter
    """
    from sglora_cli.pack.pack import Pack

    pack = Pack(app.library.find(name)[0].folder)
    wrong = pack.verify()
    if as_json:
        print_json({"pack": pack.name, "files": len(pack.manifest["files"]), "wrong": wrong})
    if wrong:
        raise BadFile(f"pack {pack.name!r}: " + "; ".join(wrong), "build or import the pack again")
    if not as_json:
        print_lines([f"healthy    {pack.name}: {len(pack.manifest['files'])} files match their hashes"])
