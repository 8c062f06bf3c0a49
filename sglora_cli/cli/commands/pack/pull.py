"""`sglora pack pull` downloads a pack from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli.options import PATH, App, force_option, json_option, not_empty
from sglora_cli.cli.output import echo, print_json, say
from sglora_cli.pack.origin import Reference
from sglora_cli.system.display import counted


@click.command("pull")
@click.argument("pack", metavar="hf:OWNER/NAME[@REV]", callback=not_empty)
@click.option("--name", default="", help="Name for the installed pack. Default: its own name.")
@force_option("Replace a built pack of that name after the new one is complete.")
@click.option(
    "--signers",
    type=PATH,
    help="Reject the pack unless a signer listed in this file signed it, as for `sglora pack import FILE`.",
)
@json_option()
@click.pass_obj
def pull(app: App, pack: str, name: str, force: bool, signers: Path | None, as_json: bool) -> None:
    """Download a pack from the Hugging Face hub and install it.

    REV is a branch, a tag or a commit. Default: the newest. The pack is checked as by `sglora pack import FILE`. Run
    the same command again to resume an interrupted download. The command was tested with a local server, never with
    the hub itself.

    \b
    sglora pack pull hf:ann/toys
    sglora pack pull hf:ann/toys@v1 --name toys-v1 --signers allowed_signers
    """
    reference = Reference.parse(pack)
    from sglora_cli.pack import hub

    pulled = hub.pull(app.host, reference, name, force, signers)
    here = pulled.pack
    if as_json:
        facts = {"pack": here.name, "backbone": here.backbone, "fingerprint": here.fingerprint}
        origin = {"signed_by": pulled.signed_by, "pulled_from": str(pulled.origin), "was_here": pulled.was_here}
        print_json({**facts, **origin, "folder": str(here.folder), "warnings": list(pulled.warnings)})
        return
    say(f"pack       {here.name}, {counted(len(here.experts.names), 'expert')}" + ", already here" * pulled.was_here)
    say(f"backbone   {here.backbone}, fingerprint {here.fingerprint}")
    say(f"from       {pulled.origin}")
    if pulled.signed_by:
        say(f"signed by  {pulled.signed_by}")
    for warning in pulled.warnings:
        say(f"warning: {warning}")
    echo(here.folder)
