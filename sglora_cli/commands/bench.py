"""`sglora bench`: methods x unseen tasks."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sglora_cli import settings
from sglora_cli.cli import App
from sglora_cli.configs import BenchConfig, RuntimeConfig, options_of


@click.command("bench")
@click.option("--baselines", default="all", show_default=True, help="all, paper, or method names with commas.")
@click.option("--pack", default="", help="Pack to measure; see `sglora pack list`.")
@click.option("--backbone", default="", help="Take the newest pack of this backbone; see `sglora plugins list`.")
@click.option(
    "--dataset", default="", help="Only unseen tasks of this data set; from its photos if a data folder is known."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Measure from the photos in this folder (with --dataset also SGLORA_DATA), not from what the pack carries.",
)
@options_of(BenchConfig)
@options_of(RuntimeConfig, "runtime")
@click.option(
    "--as",
    "reporter",
    default="",
    help="Reporter: terminal, table, markdown, json, csv; else terminal on a terminal and table elsewhere.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --as json, without progress.")
@click.option("--report", type=click.Path(path_type=Path), help="Write to this file instead of standard output.")
@click.pass_obj
def command(
    app: App,
    baselines: str,
    pack: str,
    backbone: str,
    dataset: str,
    data: Path | None,
    reporter: str,
    as_json: bool,
    report: Path | None,
    config: BenchConfig,
    runtime: RuntimeConfig,
) -> None:
    """Measure methods on the pack's unseen tasks: recall inside each task, image to text and back, or accuracy.

    \b
    sglora bench --baselines all
    sglora bench --baselines paper --dataset flowers --as markdown
    """
    from sglora_cli import benchmarking, progressing
    from sglora_cli.files import write_bytes
    from sglora_cli.generating import Session
    from sglora_cli.recipes import data_root

    progressing.be_quiet(as_json)
    usual = "terminal" if sys.stdout.isatty() and not report else "table"
    render = app.host.reporters["json" if as_json else reporter or usual]
    session = Session.open(pack, host=app.host, runtime=runtime, backbone=backbone)
    names = benchmarking.methods(app.host, session.pack, baselines)
    known = settings.load().data if dataset else ""
    root = data_root(data, known) if data or known else None
    tasks = benchmarking.unseen_tasks(app.host, session.pack, session.model, dataset, root)
    rows = benchmarking.run(session, tasks, names, config)
    text = render.render(benchmarking.report(session.pack, rows, names, config))
    if report:
        write_bytes(report, text.encode())
        click.echo(report)
    else:
        click.echo(text, nl=False)
