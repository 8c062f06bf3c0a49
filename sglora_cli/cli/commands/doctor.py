"""`sglora doctor`: checks what works on this machine and how to fix the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sglora_cli.cli.options import json_option
from sglora_cli.cli.output import echo, marked, paragraph, print_json, say
from sglora_cli.errors import Unavailable
from sglora_cli.files.escape import printable
from sglora_cli.plugin.host import Host
from sglora_cli.system.display import counted

if TYPE_CHECKING:
    from sglora_cli.cli.diagnosis import Finding


@click.command("doctor")
@click.option("--all", "every", is_flag=True, help="Also list checks that passed.")
@json_option()
def command(every: bool, as_json: bool) -> None:
    """Check what works on this machine and how to fix the rest.

    Broken things come first, then missing ones, each with the command that fixes it. The command also generates an
    adapter with the default pack in memory. The exit code is 0 if that works and 6 if not. Nothing is downloaded.

    \b
    sglora doctor
    sglora doctor --all
    sglora doctor --json
    """
    if not as_json:
        say("checking, this takes a few seconds ...")
    from sglora_cli.cli import diagnosis

    findings = diagnosis.examined(Host.load())
    works = diagnosis.works(findings)
    if as_json:
        print_json({"works": works, "findings": [asdict(one) for one in findings]})
    else:
        _print_findings(findings, every)
    if not works:
        raise Unavailable(f"no adapter can be generated: {findings[-1].text}", findings[-1].mend)


def _print_findings(findings: Sequence[Finding], every: bool) -> None:
    """Print broken and missing findings, passed ones only if `every`, and the job if it passed."""
    from sglora_cli.cli.diagnosis import BROKEN, MISSING, OK

    *others, job = findings
    fine = [one for one in others if one.state == OK]
    shown = [one for state in (BROKEN, MISSING) for one in findings if one.state == state]
    shown += [*(fine if every else ()), *([job] if job.state == OK else ())]
    for one in shown:
        start = f"{one.state:<8} {one.area:<9} "
        click.echo(marked(paragraph(f"{one.name}: {printable(one.text)}", start)))
        if one.mend and one.state != OK:
            echo(paragraph(printable(one.mend), " " * (len(start) - 3) + "-> "))
    if not every:
        things = f"{counted(len(fine), 'other check')} {'has' if len(fine) == 1 else 'have'} passed"
        click.echo(marked(paragraph(f"{things} (list them with --all)", f"{OK:<8} ")))
