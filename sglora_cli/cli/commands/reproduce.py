"""`sglora reproduce` makes the paper's tables."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import App, data_option, dry_run_option, force_option, json_option, out_option, yes_option
from sglora_cli.cli.output import confirm, echo, print_json, print_rows, say
from sglora_cli.config import BenchConfig, RuntimeConfig, options_of
from sglora_cli.system.display import counted

if TYPE_CHECKING:
    from sglora_cli.reproduce.plan import Plan


def _targets(context: click.Context) -> list[str]:
    from sglora_cli.reproduce.targets import TARGETS

    return [target.name for target in TARGETS if not target.cannot]


@click.command("reproduce")
@click.argument("table", default="", shell_complete=completion.names(_targets))
@click.option(
    "--list",
    "listed",
    is_flag=True,
    help="List the paper's tables and figures, or only TABLE, and why some cannot be made.",
)
@click.option(
    "--with",
    "family",
    default="",
    metavar="FAMILY",
    help="Use another family of recipes. For example, starter uses the recipe starter-coco instead of coco. The "
    "results are then not comparable with the paper's. Default: the paper's recipes.",
)
@data_option("Folder for the data sets. Default: the setting `data` or SGLORA_DATA.")
@out_option(
    "Folder for the results. Use the same folder to resume. Default: ./reproduce-TABLE, with FAMILY and the limit "
    "appended if they are given."
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Use only the first N tasks of each role and source. Default: all."
)
@click.option(
    "--captioner",
    default="qwen2-vl",
    show_default=True,
    help="Captioner for data sets that have no captions; see `sglora plugins list`.",
    shell_complete=completion.names(completion.captioners),
)
@dry_run_option("Only print the plan with its steps, sizes, times, terms and problems.")
@yes_option()
@force_option("Start even if memory or disk space looks insufficient.")
@options_of(BenchConfig, without=["wrong_sentences"])
@options_of(RuntimeConfig, "runtime")
@json_option()
@click.pass_context
def command(
    context: click.Context,
    table: str,
    listed: bool,
    family: str,
    data: Path | None,
    out: Path | None,
    limit: int | None,
    captioner: str,
    dry_run: bool,
    yes: bool,
    force: bool,
    as_json: bool,
    config: BenchConfig,
    runtime: RuntimeConfig,
) -> None:
    """Reproduce a table of the paper and compare the results.

    The command first prints a plan of the remaining steps with sizes, times and terms, and asks for confirmation once.
    You can interrupt it at any time and resume it with the same command. TABLE can also be the name of a figure.
    Without TABLE, the command lists the tables and figures.

    \b
    sglora reproduce --list
    sglora reproduce table1 --data data --dry-run
    sglora reproduce table1 --data data --yes
    sglora reproduce table1 --with starter --data data --limit 4
    """
    if listed or not table:
        _print_targets(table, as_json)
        return
    from sglora_cli.reproduce.job import Job, Request

    app: App = context.obj
    request = Request(table, family, data, out, limit or 0, captioner)
    job = Job.of(app.host, request, replace(config, wrong_sentences=0), runtime, _resuming(context))
    from sglora_cli.reproduce.plan import plan_of
    from sglora_cli.reproduce.run import run

    plan = plan_of(job, force)
    if dry_run:
        _print_plan(plan, as_json)
        return
    note = (lambda text: None) if as_json else say
    for line in plan.to_lines():
        note(line)
    plan.check()
    if plan.left:
        confirm(counted(len(plan.left), "step"), yes, f"pass --yes: {job.command}", "run", "run")
        note(f"interrupt it whenever you like, and resume it ({job.command})")
    comparison = run(plan, note, force)
    if as_json:
        print_json({**comparison.to_json(), "folder": str(job.folder), "steps": [one.to_json() for one in plan.steps]})
    else:
        click.echo(comparison.to_text(), nl=False)


def _resuming(context: click.Context) -> str:
    """Return the command as typed, with --yes added."""
    root: Any = context.find_root().command
    words = list(getattr(root, "words", ()))
    return shlex.join(["sglora", *words, *(["--yes"] if "--yes" not in words else [])])


def _print_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(plan.to_json())
        return
    for line in (*plan.to_lines(), *plan.missing_lines()):
        echo(line)


def _print_targets(table: str, as_json: bool) -> None:
    from sglora_cli.reproduce.targets import TARGETS, named

    targets = [named(table)] if table else TARGETS
    if as_json:
        keys = ("name", "title", "cannot")
        print_json({"targets": [{key: getattr(one, key) or None for key in keys} for one in targets]})
        return
    rows = [[one.name, f"cannot be made: {one.cannot}" if one.cannot else one.title] for one in targets]
    print_rows(("table", "what it shows"), rows, words=("what it shows",))
