"""`sglora pack export`, `import` and `remove`."""

from __future__ import annotations

from pathlib import Path

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import (
    PATH,
    App,
    check_ending,
    force_option,
    json_option,
    not_empty,
    out_option,
    pack_argument,
    yes_option,
)
from sglora_cli.cli.output import confirm, echo, print_json, say
from sglora_cli.errors import UsageError
from sglora_cli.system.display import counted


@click.command("export")
@pack_argument()
@out_option("File to write. Default: PACK.sglora.zip.")
@force_option()
@json_option()
@click.pass_obj
def export(app: App, name: str, out: Path | None, force: bool, as_json: bool) -> None:
    """Export PACK to a single file.

    The same pack always produces an identical file. Damaged packs are rejected.

    \b
    sglora pack export toys -o toys.sglora.zip
    """
    from sglora_cli.files.atomic import check_free
    from sglora_cli.files.hashes import file_hash
    from sglora_cli.pack.archive import SUFFIX, export_pack
    from sglora_cli.pack.pack import Pack

    pack = Pack(app.library.find(name)[0].folder)
    out = out or Path(f"{pack.name}{SUFFIX}")
    check_ending("pack", out, ".zip", "-o", ".sglora.zip")
    check_free(out, force)
    export_pack(pack, out)
    facts = {"file": str(out), "pack": pack.name, "bytes": out.stat().st_size, "sha256": file_hash(out)}
    if as_json:
        print_json(facts)
    else:
        say(f"pack       {pack.name}, {counted(len(pack.manifest['files']) + 1, 'file')}, {out.stat().st_size} bytes")
        say(f"sha256     {facts['sha256']}")
        echo(out)


@click.command("import")
@click.argument("file", type=PATH)
@click.option("--name", default="", help="Name for the installed pack. Default: its own name.")
@force_option("Replace a built pack of that name after the new one is complete.")
@click.option("--signers", type=PATH, help="Reject FILE unless a signer listed in this file signed it.")
@click.option("--signature", type=PATH, help="File with the signature. Default: FILE.sig.")
@json_option()
@click.pass_obj
def import_(
    app: App, file: Path, name: str, force: bool, signers: Path | None, signature: Path | None, as_json: bool
) -> None:
    """Install a pack from FILE.

    The command checks every name, size and hash before it installs the pack.

    \b
    ssh-keygen -Y sign -n sglora -f ~/.ssh/id_ed25519 toys.sglora.zip     # by the author, writes the .sig
    sglora pack import toys.sglora.zip --signers allowed_signers          # checks toys.sglora.zip.sig

    allowed_signers lists the keys that you trust, one per line, such as `ann@example.org ssh-ed25519 AAAAC3...`.
    """
    from sglora_cli.pack.archive import SIGNATURE_SUFFIX, import_pack, signed

    if signature and not signers:
        raise UsageError("--signature requires --signers, a file of trusted keys", "pass --signers FILE too")
    who = None
    if signers:
        with signed(file, signature or Path(f"{file}{SIGNATURE_SUFFIX}"), signers) as checked:
            who, imported = checked.by, import_pack(app.host, file, name, force, checked.copy)
    else:
        imported = import_pack(app.host, file, name, force)
    pack = imported.pack
    if as_json:
        facts = {"pack": pack.name, "backbone": pack.backbone, "fingerprint": pack.fingerprint, "signed_by": who}
        print_json({**facts, "folder": str(pack.folder), "warnings": list(imported.warnings)})
    else:
        say(f"pack       {pack.name}, {counted(len(pack.experts.names), 'expert')}")
        say(f"backbone   {pack.backbone}, fingerprint {pack.fingerprint}")
        if who:
            say(f"signed by  {who}")
        for warning in imported.warnings:
            say(f"warning: {warning}")
        echo(pack.folder)


@click.command("remove")
@pack_argument()
@click.argument("expert", required=False, callback=not_empty, shell_complete=completion.names(completion.experts))
@yes_option()
@json_option()
@click.pass_obj
def remove(app: App, name: str, expert: str | None, yes: bool, as_json: bool) -> None:
    """Remove a built PACK, or a single EXPERT from a pack.

    \b
    sglora pack remove toys
    sglora pack remove starter flowers/daffodil
    """
    location, _ = app.library.find(name)
    if expert:
        from sglora_cli.build import edit
        from sglora_cli.pack.pack import Pack

        pack = Pack(location.folder)
        edit.check_expert(pack, expert)
        if not app.library.is_bundled(location.folder):  # editing a bundled pack loses nothing
            confirm(f"expert {expert} from pack {location.name!r} in {location.folder}", yes)
        removed = edit.remove_expert(pack, expert, app.library)
        result, notes = removed.pack.folder, removed.notes
    else:
        app.library.check_removable(location.folder)
        confirm(f"pack {location.name!r} in {location.folder}", yes)
        result, notes = location.folder, app.library.remove(location.folder)
    if as_json:
        facts = {"pack": location.name, "expert": expert, "folder": str(result), "notes": list(notes)}
        print_json(facts)
    else:
        say(f"removed    {f'{expert} from ' if expert else ''}{location.name}")
        for note in notes:
            say(f"note       {note}")
        echo(result)
