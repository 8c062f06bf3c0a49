"""`sglora pack add`: experts made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import (
    ADAPTER,
    PATH,
    App,
    alpha_option,
    check_present,
    json_option,
    not_empty,
    visual_only_option,
)
from sglora_cli.cli.output import print_json, say
from sglora_cli.config import RuntimeConfig, options_of
from sglora_cli.errors import UsageError


@click.command("add")
@click.argument("pack", callback=not_empty, shell_complete=completion.names(completion.packs))
@click.argument("adapters", metavar="[ADAPTER]...", nargs=-1, type=ADAPTER)
@click.option("--text", default="", help="The sentence that says what the expert is for.")
@click.option("--name", default="", help="GROUP/NAME of the expert; else added/ and what TEXT is a photo of.")
@click.option("--list", "listed", type=PATH, help="Add many: a file of JSON lines, an expert each.")
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
    listed: Path | None,
    alpha: float | None,
    visual_only: bool,
    runtime: RuntimeConfig,
    as_json: bool,
) -> None:
    """Make an expert of adapter files and add it to PACK.

    An ADAPTER is in any format that `sglora import` reads; several are several states of one expert. A bundled pack is
    copied to the user cache first. With --list all experts of the file are added at once, or none.

    \b
    sglora pack add starter teapot-peft/ --text "a photo of a teapot" --name things/teapot
    sglora pack add starter --list experts.jsonl
    A line of experts.jsonl: {"adapter": "teapot-peft", "text": "a photo of a teapot", "name": "things/teapot"}
    """
    if listed and (adapters or text or name):
        raise UsageError("--list names adapters and sentences itself", "leave out ADAPTER, --text and --name")
    if not listed and not (adapters and text):
        raise UsageError("an expert needs an adapter and a sentence", 'pass ADAPTER --text "..." or --list FILE')
    check_present(*([listed] if listed else adapters))
    location, _ = app.library.find(pack)
    from sglora_cli.build.edit import NewExpert, add_experts, experts_of_list

    experts = experts_of_list(listed) if listed else [NewExpert(adapters, text, name)]
    done = add_experts(app.host, location, experts, runtime, alpha=alpha, visual_only=visual_only)
    if as_json:
        print_json({"folder": str(done.folder), "task": done.tasks[0], "tasks": list(done.tasks)})
        return
    for line in done.lines:
        say(line)
    click.echo(done.folder)
