"""`sglora import`: an adapter of another program, as a file of ours."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli.options import App
from sglora_cli.cli.output import print_json, say
from sglora_cli.config import RuntimeConfig, options_of


@click.command("import")
@click.argument("thing", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The .safetensors file to write.")
@click.option("--backbone", default="", help="Backbone it was made for; else the one it names, else the settings'.")
@click.option("--alpha", type=float, help="lora_alpha of a PEFT state that has no adapter_config.json.")
@click.option("--rank", type=click.IntRange(1, 1024), help="Compress the update to this rank; its own by default.")
@click.option("--visual-only", is_flag=True, help="Leave out updates outside the visual encoder.")
@click.option("--text", default="", help="The sentence that says what the adapter is for.")
@options_of(RuntimeConfig, "runtime")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
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
    """Read THING and write it as an adapter file of sglora.

    THING is a PEFT folder or state, a file of CLIP-LoRA, a checkpoint with a merged update, or an
    adapter file of sglora.

    \b
    sglora import pug-peft/ -o pug.safetensors --text "a photo of a pug"
    """
    from sglora_cli.adapter.convert import import_adapter

    done = import_adapter(
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
        print_json({"file": str(out), **done.about})
        return
    for line in done.lines:
        say(line)
    click.echo(out)
