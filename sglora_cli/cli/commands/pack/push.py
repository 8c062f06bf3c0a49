"""`sglora pack push` uploads a pack to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sglora_cli.cli.options import PATH, App, dry_run_option, json_option, not_empty, pack_argument, yes_option
from sglora_cli.cli.output import confirm, echo, print_json, say
from sglora_cli.pack.origin import Reference
from sglora_cli.system.display import counted


@click.command("push")
@pack_argument()
@click.argument("repository", metavar="hf:OWNER/NAME", callback=not_empty)
@click.option("--private", is_flag=True, help="Make the repository private if it does not exist yet.")
@click.option("--license", "licence", default="", help="Licence in the model card, such as apache-2.0. Default: none.")
@click.option(
    "--signature",
    type=PATH,
    help="Signature of the exported pack. Default: PACK.sglora.zip.sig in the working folder, if it exists.",
)
@dry_run_option("Only list the files that would be uploaded, without a network.")
@yes_option()
@json_option()
@click.pass_obj
def push(
    app: App,
    name: str,
    repository: str,
    private: bool,
    licence: str,
    signature: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Upload PACK to a model repository of the Hugging Face hub.

    The command uploads the exported pack, its signature and a model card (README.md) in one commit. It creates the
    repository if necessary. The token comes from `hf auth login` or HF_TOKEN. The command was tested with a local
    server, never with the hub itself. Check your upload with `sglora pack pull`.

    \b
    sglora pack push toys hf:ann/toys --dry-run
    sglora pack push toys hf:ann/toys --license cc-by-4.0 --private
    """
    reference = Reference.parse(repository)
    from sglora_cli.pack import hub_upload
    from sglora_cli.pack.archive import SIGNATURE_SUFFIX, SUFFIX
    from sglora_cli.pack.pack import Pack

    pack = Pack(app.library.find(name)[0].folder)
    beside = Path(f"{pack.name}{SUFFIX}{SIGNATURE_SUFFIX}")
    signature = signature or (beside if beside.is_file() else None)
    with hub_upload.upload_of(pack, reference, licence, signature) as upload:
        sizes = upload.sizes()
        facts: dict[str, Any] = {"pack": pack.name, "repository": str(reference), "files": sizes}
        for file, count in sizes.items():
            say(f"file       {file}, {counted(count, 'byte')}")
        if not licence:
            say("note       the model card names no licence; pass --license to name one")
        done = None
        if not dry_run:
            there = hub_upload.repository_state(upload, reference, private)
            seen = ("private" if there.private else "public") if there else f"new, {'private' if private else 'public'}"
            replaced = [file for file in sizes if there and file in there.files]
            if replaced:
                say(f"replaces   {', '.join(replaced)}")
            confirm(f"pack {pack.name!r} to {reference} ({seen})", yes, verb="upload", done="uploaded")
            done = hub_upload.push(upload, reference, there, private)
    if as_json:
        print_json({**facts, "commit": done and done.commit, "url": done and done.url})
    elif done:
        say(f"commit     {done.commit}")
        say(f"to use it  sglora pack pull {reference}")
        echo(done.url)
