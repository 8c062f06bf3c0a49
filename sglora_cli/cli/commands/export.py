"""`sglora export`: an adapter for other programs."""

from __future__ import annotations

import click

from sglora_cli.cli.options import App
from sglora_cli.cli.output import print_json
from sglora_cli.config import ADAPTER_FORMATS, OneOf, RuntimeConfig, options_of
from sglora_cli.system import settings


@click.command("export")
@click.argument("adapter")
@click.option("-o", "--out", required=True, help="File to write, or folder for peft and peft-flat.")
@click.option(
    "--format", "name", type=OneOf("format", ADAPTER_FORMATS), default="", help="Format; else by the ending of -o."
)
@options_of(RuntimeConfig, "runtime")
@click.option("--force", is_flag=True, help="Replace what is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(app: App, adapter: str, out: str, name: str, runtime: RuntimeConfig, force: bool, as_json: bool) -> None:
    """Write ADAPTER, a file of sglora, in another program's format, and check that its effect is the same.

    \b
    sglora export pug.safetensors -o pug-peft/
    sglora export pug.safetensors -o merged.safetensors --format open_clip
    """
    from pathlib import Path

    from sglora_cli.adapter.file import load_adapter
    from sglora_cli.adapter.write import check_target, format_of, write_adapter

    format, path = format_of(out, name), Path(out)
    check_target(path, format, force)
    found = load_adapter(Path(adapter))
    backbone = found.backbone
    model = app.host.backbones[backbone].load(settings.runtime(runtime, backbone, exact=True))
    write_adapter(path, found, model, format)
    if as_json:
        print_json({"file": str(path), "format": format.name, "backbone": backbone})
    else:
        click.echo(path)
