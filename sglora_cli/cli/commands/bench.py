"""`sglora bench`: methods x unseen tasks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sglora_cli.cli.options import App
from sglora_cli.cli.output import print_json, printable, say
from sglora_cli.config import ABLATIONS, TASK_TABLES, BenchConfig, OneOf, RuntimeConfig, options_of


@click.command("bench")
@click.option(
    "--baselines", default="all", show_default=True, help="Names with commas; all and paper stand for several."
)
@click.option("--adapter", "adapters", default="", help="Measure these adapter files (commas) instead, any format.")
@click.option("--pack", default="", help="Pack to measure; see `sglora pack list`.")
@click.option("--backbone", default="", help="Take the newest pack of this backbone; see `sglora plugins list`.")
@click.option("--on", default="", help="Measure on the unseen tasks that this other pack carries.")
@click.option("--dataset", default="", help="Only tasks of this data set; from its photos if a data folder is known.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Measure from the photos in this folder (with --dataset also SGLORA_DATA), not from what the pack carries.",
)
@click.option("--tasks", default="", help="Only these tasks: names or keys with commas.")
@click.option(
    "--table",
    metavar="NAME",
    type=OneOf("table", [*TASK_TABLES, *ABLATIONS]),
    default="all",
    show_default=True,
    help=f"Tasks to keep: {', '.join(TASK_TABLES)}. Or methods on all tasks with one thing changed: "
    f"{', '.join(ABLATIONS)}.",
)
@click.option(
    "--sentences",
    type=click.Path(path_type=Path),
    help='For ablation-description: JSON, {"pets/pug": "a small dog with a black muzzle", ...}.',
)
@click.option("--own-expert", is_flag=True, help="Measure on tasks that the pack has seen, too. It is a leak.")
@options_of(BenchConfig)
@options_of(RuntimeConfig, "runtime")
@click.option("--rows", type=click.Path(path_type=Path), help="Append rows to this file, or go on with it.")
@click.option("--fresh", is_flag=True, help="Measure again what was measured before.")
@click.option("--paper", is_flag=True, help="Show the paper's numbers and the difference beside each cell.")
@click.option("--dry-run", is_flag=True, help="Say what would be measured and how long it takes, and stop.")
@click.option(
    "--as",
    "reporter",
    default="",
    help="Reporter: terminal, table, markdown, latex, json, csv; else terminal on a terminal and table elsewhere.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --as json, without progress.")
@click.option("--report", type=click.Path(path_type=Path), help="Write to this file instead of standard output.")
@click.pass_obj
def command(
    app: App,
    /,
    adapters: str,
    rows: Path | None,
    fresh: bool,
    paper: bool,
    dry_run: bool,
    reporter: str,
    as_json: bool,
    report: Path | None,
    config: BenchConfig,
    runtime: RuntimeConfig,
    **asked: Any,
) -> None:
    """Measure methods on unseen tasks: recall (or accuracy) inside each task, averaged over tasks.

    \b
    sglora bench --baselines all
    sglora bench --baselines paper --dataset flowers --as markdown
    sglora bench --pack birds --on flowers --rows rows.jsonl
    sglora bench --table ablation-k --baselines top-k,cvae
    sglora bench --adapter pug-peft/ --tasks pug
    """
    from sglora_cli.bench import run
    from sglora_cli.bench.measure import Measurer
    from sglora_cli.bench.plan import BenchRequest, bench_plan
    from sglora_cli.bench.rows_file import log_of
    from sglora_cli.files.atomic import write_bytes
    from sglora_cli.system import progress

    progress.be_quiet(as_json)
    usual = "terminal" if sys.stdout.isatty() and not report else "table"
    render = app.host.reporters["json" if as_json else reporter or usual]
    files = [Path(name.strip()) for name in adapters.split(",") if name.strip()]
    plan = bench_plan(app.host, BenchRequest(adapters=files, **asked), config, runtime)
    measurer = Measurer(plan.model, runtime.precision, fresh)
    if dry_run:
        _print_estimate(run.estimate(plan, measurer), as_json)
        return
    with log_of(rows, plan.header(" ".join(["sglora bench", *sys.argv[2:]]), asked["table"])) as log:
        measured = run.run(plan, measurer, log)
    if not as_json:
        say(f"{measurer.count.encoded} images encoded, {measurer.count.saved} saved; rows in {log.path}")
    text = render.render(run.report(plan, measured, paper))
    if report:
        write_bytes(report, text.encode())
        click.echo(report)
    else:
        click.echo(text, nl=False)


def _print_estimate(found: dict[str, Any], as_json: bool) -> None:

    if as_json:
        print_json(found)
        return
    click.echo(f"pack      {found['pack']}")
    click.echo(printable(f"tasks     {len(found['tasks'])}: {', '.join(found['tasks'])}"))
    click.echo(f"methods   {len(found['methods'])}: {', '.join(found['methods'])}")
    click.echo(f"adapters  {found['adapters']}")
    click.echo(f"images    {found['images_to_encode']} to encode, {found['images_known']} known already")
    click.echo(f"time      about {found['seconds']} s at {found['images_per_second']} images/s (measured just now)")
