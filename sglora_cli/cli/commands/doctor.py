"""`sglora doctor`: what works here, and how to mend what does not."""

from __future__ import annotations

from dataclasses import asdict

import click

from sglora_cli.cli.options import json_option
from sglora_cli.cli.output import paragraph, print_json, printable, say
from sglora_cli.errors import Unavailable
from sglora_cli.plugin.host import Host


@click.command("doctor")
@json_option()
def command(as_json: bool) -> None:
    """Check what works here and say how to fix what does not.

    It makes an adapter with the default pack, in memory: exit code 0 if that works, 6 if not. It fetches nothing.

    \b
    sglora doctor
    sglora doctor --json
    """
    if not as_json:
        say("looking, a few seconds ...")
    from sglora_cli.cli import diagnosis

    findings = diagnosis.examined(Host.load())
    works = diagnosis.works(findings)
    if as_json:
        print_json({"works": works, "findings": [asdict(one) for one in findings]})
    else:
        marks = {diagnosis.OK: "ok", diagnosis.MISSING: "-", diagnosis.BROKEN: "NO"}
        for one in findings:
            start = f"{marks[one.state]:<3} {one.area:<9} "
            click.echo(paragraph(f"{one.name}: {printable(one.text)}", start))
            if one.mend and one.state != diagnosis.OK:
                click.echo(paragraph(printable(one.mend), " " * 11 + "-> "))
    if not works:
        raise Unavailable(f"no adapter can be made: {findings[-1].text}", findings[-1].mend)
