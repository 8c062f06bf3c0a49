"""`sglora pack add`: an expert made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import PATH, App, alpha_option, json_option, visual_only_option
from sglora_cli.cli.output import print_json, say
from sglora_cli.config import RuntimeConfig, options_of


@click.command("add")
@click.argument("pack", shell_complete=completion.names(completion.packs))
@click.argument("adapters", metavar="ADAPTER...", nargs=-1, required=True, type=PATH)
@click.option("--text", required=True, help="The sentence that says what the expert is for.")
@click.option("--name", default="", help="GROUP/NAME of the expert; else added/ and what TEXT is a photo of.")
@alpha_option()
@visual_only_option()
@options_of(RuntimeConfig, "runtime")
@json_option()
@click.pass_obj
def add(
    app: App,
    pack: str,
    adapters: tuple[Path, ...],
    text: str,
    name: str,
    alpha: float | None,
    visual_only: bool,
    runtime: RuntimeConfig,
    as_json: bool,
) -> None:
    """Make an expert of adapter files and add it to PACK.

    An ADAPTER is in any format that `sglora import` reads; several are several states of one expert. A bundled pack is
    copied to the user cache first.

    \b
    sglora pack add starter teapot-peft/ --text "a photo of a teapot" --name things/teapot
    """
    from sglora_cli.build.edit import add_expert

    location, _ = app.library.find(pack)
    done = add_expert(app.host, location, adapters, text, name, runtime, alpha=alpha, visual_only=visual_only)
    if as_json:
        print_json({"folder": str(done.folder), "task": done.task})
        return
    for line in done.lines:
        say(line)
    click.echo(done.folder)
