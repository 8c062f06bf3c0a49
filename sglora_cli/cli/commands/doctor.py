"""`sglora doctor`: what works here, and how to mend what does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sglora_cli.cli.options import json_option
from sglora_cli.cli.output import marked, paragraph, print_json, printable, say
from sglora_cli.errors import Unavailable
from sglora_cli.plugin.host import Host
from sglora_cli.system.display import counted

if TYPE_CHECKING:
    from sglora_cli.cli.diagnosis import Finding


@click.command("doctor")
@click.option("--all", "every", is_flag=True, help="List also what is fine.")
@json_option()
def command(every: bool, as_json: bool) -> None:
    """Check what works here and say how to fix what does not.

    What is broken comes first, then what is missing, each with the command that helps. It makes an adapter with the
    default pack, in memory: exit code 0 if that works, 6 if not. It fetches nothing.

    \b
    sglora doctor
    sglora doctor --all
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
        _print_findings(findings, every)
    if not works:
        raise Unavailable(f"no adapter can be made: {findings[-1].text}", findings[-1].mend)


def _print_findings(findings: Sequence[Finding], every: bool) -> None:
    """What is broken, what is missing, and last the job; what is fine besides only if `every` finding is wanted."""
    from sglora_cli.cli.diagnosis import BROKEN, MISSING, OK

    *others, job = findings
    fine = [one for one in others if one.state == OK]
    shown = [one for state in (BROKEN, MISSING) for one in findings if one.state == state]
    shown += [*(fine if every else ()), *([job] if job.state == OK else ())]
    for one in shown:
        start = f"{one.state:<8} {one.area:<9} "
        click.echo(marked(paragraph(f"{one.name}: {printable(one.text)}", start)))
        if one.mend and one.state != OK:
            click.echo(paragraph(printable(one.mend), " " * (len(start) - 3) + "-> "))
    if not every:
        things = f"{counted(len(fine), 'other thing')} {'is' if len(fine) == 1 else 'are'} fine"
        click.echo(marked(paragraph(f"{things}; --all lists them", f"{OK:<8} ")))
