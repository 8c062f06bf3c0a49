"""`sglora pack migrate`: writes a pack in the current format."""

from __future__ import annotations

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import App, json_option, not_empty
from sglora_cli.cli.output import echo, print_json, say
from sglora_cli.config import RuntimeConfig, options_of


@click.command("migrate")
@click.argument("pack", callback=not_empty, shell_complete=completion.names(completion.packs))
@options_of(RuntimeConfig, "runtime")
@json_option()
@click.pass_obj
def migrate(app: App, pack: str, runtime: RuntimeConfig, as_json: bool) -> None:
    """Convert PACK to the current format, with the same adapters.

    Packs in older formats stay readable, but with many experts they take longer to open. A bundled pack is copied
    first. Versions of sglora that support only the older format cannot read the result.

    \b
    sglora pack migrate flowers
    """
    location = app.library.find(pack)[0]
    from sglora_cli.build.migrate import migrate as write
    from sglora_cli.pack.pack import Pack

    before = Pack(location.folder).format
    folder = write(app.host, location, runtime)
    after = Pack(folder).format
    if as_json:
        print_json({"folder": str(folder), "from": before, "to": after})
        return
    say(f"format     {before} -> {after}" if before != after else f"format     {after} is current, nothing to do")
    echo(folder)
