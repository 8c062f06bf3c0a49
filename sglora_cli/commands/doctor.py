"""`sglora doctor`: what works here, and how to mend what does not."""

from __future__ import annotations

from dataclasses import asdict

import click

from sglora_cli.cli import say
from sglora_cli.errors import Unavailable
from sglora_cli.host import Host
from sglora_cli.printing import paragraph, print_json, printable


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Say what works on this machine, and the one command that mends what does not.

    It makes an adapter with the default pack, in memory: exit code 0 if that works, 6 if not. It fetches nothing.

    \b
    sglora doctor
    sglora doctor --json
    """
    if not as_json:
        say("looking, a few seconds ...")
    from sglora_cli import doctoring

    found = doctoring.examined(Host.load())
    works = doctoring.works(found)
    if as_json:
        print_json({"works": works, "findings": [asdict(one) for one in found]})
    else:
        marks = {doctoring.OK: "ok", doctoring.MISSING: "-", doctoring.BROKEN: "NO"}
        for one in found:
            start = f"{marks[one.state]:<3} {one.area:<9} "
            click.echo(paragraph(f"{one.name}: {printable(one.text)}", start))
            if one.mend and one.state != doctoring.OK:
                click.echo(paragraph(printable(one.mend), " " * 11 + "-> "))
    if not works:
        raise Unavailable(f"no adapter can be made: {found[-1].text}", found[-1].mend)
