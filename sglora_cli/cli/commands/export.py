"""`sglora export`: writes an adapter for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli.options import ADAPTER, App, FilePath, check_present, force_option, json_option, out_option
from sglora_cli.cli.output import echo, print_json
from sglora_cli.config import ADAPTER_FORMATS, OneOf, RuntimeConfig, options_of
from sglora_cli.system import settings


@click.command("export")
@click.argument("adapter", type=ADAPTER)
@out_option("File to write, or folder for peft and peft-flat.", required=True, type=FilePath())
@click.option(
    "--format",
    "name",
    type=OneOf("format", ADAPTER_FORMATS),
    default="",
    help="Format to write. Default: by the ending of -o.",
)
@options_of(RuntimeConfig, "runtime")
@force_option()
@json_option()
@click.pass_obj
def command(app: App, adapter: Path, out: str, name: str, runtime: RuntimeConfig, force: bool, as_json: bool) -> None:
    """Write ADAPTER for PEFT, open_clip or CLIP-LoRA.

    ADAPTER is a file in sglora's format. The command reads the result back and compares its effect with ADAPTER's.

    \b
    sglora export pug.safetensors -o pug-peft/
    sglora export pug.safetensors -o merged.safetensors --format open_clip
    """
    from sglora_cli.adapter.formats import check_target, format_of

    format, path = format_of(out, name), Path(out)
    check_target(path, format, force)
    check_present(adapter)
    from sglora_cli.adapter.file import load_adapter
    from sglora_cli.adapter.write import write_adapter

    content = load_adapter(adapter)
    backbone = content.backbone
    model = app.host.backbones[backbone].load(settings.runtime(runtime, backbone, exact=True))
    write_adapter(path, content, model, format)
    if as_json:
        print_json({"file": str(path), "format": format.name, "backbone": backbone})
    else:
        echo(path)
