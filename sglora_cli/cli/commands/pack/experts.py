"""`sglora pack add`: adds experts made elsewhere to a pack."""

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
from sglora_cli.cli.output import echo, print_json, say
from sglora_cli.config import RuntimeConfig, options_of
from sglora_cli.errors import UsageError


@click.command("add")
@click.argument("pack", callback=not_empty, shell_complete=completion.names(completion.packs))
@click.argument("adapters", metavar="[ADAPTER]...", nargs=-1, type=ADAPTER)
@click.option("--text", default="", help="Sentence that describes the expert's task.")
@click.option(
    "--name", default="", help='GROUP/NAME of the expert. Default: added/ and what follows "a photo of" in --text.'
)
@click.option("--list", "listed", type=PATH, help="JSON Lines file with one expert per line, to add many at once.")
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
    """Make an expert from adapter files and add it to PACK.

    ADAPTER is in any format that `sglora import` reads. The expert is the mean and variance of all ADAPTERs. A bundled
    pack is first copied to the user cache. With --list, either all experts in the file are added or none.

    \b
    sglora pack add starter teapot-peft/ --text "a photo of a teapot" --name things/teapot
    sglora pack add starter --list experts.jsonl

    \b
    A line of experts.jsonl:
    {"adapter": "teapot-peft", "text": "a photo of a teapot", "name": "things/teapot"}
    """
    if listed and (adapters or text or name):
        raise UsageError(
            "--list cannot be combined with ADAPTER, --text or --name", "leave out ADAPTER, --text and --name"
        )
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
    echo(done.folder)
