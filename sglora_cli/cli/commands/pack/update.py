"""`sglora pack update`: adds data that newer versions store in packs."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import App, data_option, json_option, not_empty
from sglora_cli.cli.output import echo, print_json, say
from sglora_cli.config import RuntimeConfig, options_of
from sglora_cli.system import settings


@click.command("update")
@click.argument("pack", callback=not_empty, shell_complete=completion.names(completion.packs))
@data_option("Folder with the photos that the pack was built from. Default: the setting `data`.")
@options_of(RuntimeConfig, "runtime")
@json_option()
@click.pass_obj
def update(app: App, pack: str, data: Path | None, as_json: bool, runtime: RuntimeConfig) -> None:
    """Add data about photos that newer versions store in packs.

    The command adds the mean embeddings of the tasks' photos and captions, which the generator all-but-the-task needs.
    It also adds the hashes of the training photos, which `sglora bench` compares with test photos. It trains nothing
    and does not change adapters. A bundled pack is copied first.

    \b
    sglora pack update flowers --data DIR
    """
    from sglora_cli.system.paths import data_folder

    location = app.library.find(pack)[0]
    from sglora_cli.build.update import lacking
    from sglora_cli.build.update import update as add
    from sglora_cli.pack.pack import Pack

    added, folder = " and ".join(lacking(Pack(location.folder)).values()), location.folder
    if added:
        folder = add(app.host, location, data_folder(data, settings.load().data), runtime)
    if as_json:
        print_json({"folder": str(folder), "added": added})
        return
    say(f"added      {added}" if added else "nothing to add, the pack is up to date")
    echo(folder)
