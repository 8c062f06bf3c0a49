"""`sglora import`: converts an adapter of another program to sglora's format."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli.options import (
    ADAPTER,
    App,
    alpha_option,
    backbone_option,
    check_present,
    force_option,
    json_option,
    out_option,
    visual_only_option,
)
from sglora_cli.cli.output import echo, print_json, say
from sglora_cli.config import RuntimeConfig, options_of


@click.command("import")
@click.argument("thing", type=ADAPTER)
@out_option("File to write, ending in .safetensors.", required=True)
@backbone_option("Backbone of the adapter. Default: the one it names, else the setting `backbone`.")
@alpha_option()
@click.option(
    "--rank", type=click.IntRange(1, 1024), help="Compress the update to this rank. Default: the adapter's own."
)
@visual_only_option()
@click.option("--text", default="", help="Sentence that describes the adapter's task. Default: the adapter's own.")
@options_of(RuntimeConfig, "runtime")
@force_option()
@json_option()
@click.pass_obj
def command(
    app: App,
    thing: Path,
    out: Path,
    backbone: str,
    alpha: float | None,
    rank: int | None,
    visual_only: bool,
    text: str,
    runtime: RuntimeConfig,
    force: bool,
    as_json: bool,
) -> None:
    """Convert an adapter of another program to sglora's format.

    THING is a PEFT folder or state file, a CLIP-LoRA file, a checkpoint with a merged update, or an adapter file of
    sglora.

    \b
    sglora import pug-peft/ -o pug.safetensors --text "a photo of a pug"
    """
    from sglora_cli.adapter.formats import check_target, format_of

    check_target(out, format_of(out, "safetensors"), force)
    check_present(thing)
    from sglora_cli.adapter.convert import import_adapter

    imported = import_adapter(
        app.host,
        thing,
        out,
        runtime,
        backbone=backbone,
        alpha=alpha,
        rank=rank,
        visual_only=visual_only,
        text=text,
        force=force,
    )
    if as_json:
        print_json({"file": str(out), **imported.metadata})
        return
    for line in imported.lines:
        say(line)
    echo(out)
