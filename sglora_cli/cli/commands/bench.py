"""`sglora bench`: measures methods on tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sglora_cli.adapter.library import found
from sglora_cli.cli import completion
from sglora_cli.cli.completion import names
from sglora_cli.cli.options import (
    PATH,
    App,
    backbone_option,
    check_present,
    data_option,
    dry_run_option,
    json_option,
    not_empty,
    out_option,
    pack_option,
    pulls,
    reporter_option,
    table_name,
)
from sglora_cli.cli.output import echo, print_json, print_lines, say
from sglora_cli.config import ABLATIONS, TASK_TABLES, BenchConfig, OneOf, RuntimeConfig, options_of
from sglora_cli.plugin.values import TRAINING, UNSEEN

if TYPE_CHECKING:
    from sglora_cli.build.estimate import Estimate
    from sglora_cli.build.pipeline import Build


@click.command("bench")
@click.option(
    "--baselines",
    default="paper",
    callback=not_empty,
    show_default=True,
    help="Comma-separated methods to measure. Use paper for those of the paper's table, or all for every method that "
    "can run, which takes many times longer.",
    shell_complete=names(completion.baselines, commas=True),
)
@click.option(
    "--adapter",
    "adapters",
    default="",
    help="Measure these comma-separated adapter files of any format instead of a pack's methods.",
    type=click.Path(),
)
@pack_option()
@backbone_option()
@click.option(
    "--on",
    default="",
    help="Measure on the unseen tasks stored in this other pack.",
    shell_complete=names(completion.packs),
)
@click.option(
    "--dataset",
    default="",
    help="Use only tasks of this data set, from its photos if a data folder is set.",
    shell_complete=names(completion.datasets),
)
@data_option("Measure from photos in this folder instead of the pack's data. With --dataset, SGLORA_DATA works too.")
@click.option(
    "--tasks",
    default="",
    help="Use only these tasks, given as comma-separated names or keys.",
    shell_complete=names(completion.unseen_tasks, commas=True),
)
@click.option(
    "--role",
    type=OneOf("role", [UNSEEN, TRAINING]),
    default=UNSEEN,
    show_default=True,
    help="Measure on the pack's unseen tasks, or on its training tasks to choose settings, which needs --data.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    help="Cross-validate over tasks: build the pack's recipe this many times, each time without a part of its tasks, "
    "and measure on those. Needs the photos (--data or SGLORA_DATA).",
)
@click.option(
    "--table",
    metavar="NAME",
    type=OneOf("table", [*TASK_TABLES, *ABLATIONS]),
    default="all",
    show_default=True,
    help=f"Tasks to measure on: {', '.join(TASK_TABLES)}. Or an ablation on all tasks: {', '.join(ABLATIONS)}.",
)
@click.option(
    "--sentences",
    type=PATH,
    help='JSON file for ablation-description, such as {"pets/pug": "a small dog with a black muzzle"}.',
)
@click.option(
    "--own-expert", is_flag=True, help="Also measure on tasks that the pack has seen, which leaks training data."
)
@options_of(BenchConfig)
@options_of(RuntimeConfig, "runtime")
@click.option(
    "--rows", type=PATH, help="Append rows to this file, or resume from it. Default: a file in the user cache."
)
@click.option("--fresh", is_flag=True, help="Ignore cached measurements.")
@click.option("--paper", is_flag=True, help="Show the paper's number and the difference beside each cell.")
@dry_run_option("Only print what would be measured and how long it takes.")
@reporter_option("Reporter: table, markdown, latex, json or csv. Default: terminal in a terminal, table elsewhere.")
@out_option("File for the tables. Default: standard output.", callback=table_name)
@json_option("The object is the same as with --as json.")
@pulls("on")
@click.pass_obj
def command(
    app: App,
    /,
    adapters: str,
    folds: int | None,
    rows: Path | None,
    fresh: bool,
    paper: bool,
    dry_run: bool,
    reporter: str,
    as_json: bool,
    out: Path | None,
    config: BenchConfig,
    runtime: RuntimeConfig,
    **request: Any,
) -> None:
    """Measure methods on unseen tasks.

    Recall (or accuracy) is measured within each task and averaged over tasks.

    \b
    sglora bench
    sglora bench --baselines all --dry-run
    sglora bench --dataset flowers --as markdown -o table.md
    sglora bench --pack birds --on flowers --rows rows.jsonl
    sglora bench --table ablation-k --baselines top-k,cvae
    sglora bench --adapter pug-peft/ --tasks pug
    sglora bench --role training --data data --table ablation-k
    sglora bench --folds 5 --data data --baselines paper --rows folds.jsonl
    """
    from sglora_cli.bench.request import BenchRequest

    usual = "terminal" if sys.stdout.isatty() and not out else "table"
    render = app.host.reporters["json" if as_json else reporter or usual]
    files = [found(Path(name.strip())) for name in adapters.split(",") if name.strip()]
    bench_request = BenchRequest(adapters=files, **request)
    if not folds:
        bench_request.check()
        check_present(*files)
    for name in filter(None, (bench_request.pack, bench_request.on)):
        app.library.find(name)  # fail before torch is imported
    from sglora_cli.bench import run
    from sglora_cli.bench.measure import Measurer
    from sglora_cli.bench.plan import bench_plan
    from sglora_cli.bench.rows_file import log_of
    from sglora_cli.files.atomic import write_bytes

    if folds:
        from sglora_cli.build.folds import Folds

        work = Folds.of(app.host, bench_request, folds, runtime, (lambda text: None) if as_json else say)
        if dry_run:
            _print_builds(work.estimates(), as_json)
            return
        plan = work.plan(config)
    else:
        plan = bench_plan(app.host, bench_request, config, runtime)
    measurer = Measurer(plan.model, runtime.precision, fresh)
    if dry_run:
        _print_estimate(run.estimate(plan, measurer), as_json)
        return
    with log_of(rows, plan.header(" ".join(["sglora bench", *sys.argv[2:]]), request["table"])) as log:
        measured = run.run(plan, measurer, log)
    if not as_json:
        say(f"{measurer.count.encoded} images encoded, {measurer.count.saved} saved, rows in {log.path}")
    text = render.render(run.report(plan, measured, paper))
    if out:
        write_bytes(out, text.encode())
        echo(out)
    else:
        click.echo(text, nl=False)


def _print_builds(builds: Sequence[tuple[Build, Estimate | None]], as_json: bool) -> None:
    if as_json:
        needs = [estimate.to_json() if estimate else {} for _, estimate in builds]
        folds = [{**build.to_json(), "built": not need, **need} for (build, _), need in zip(builds, needs, strict=True)]
        print_json({"folds": folds})
        return
    for n, (build, estimate) in enumerate(builds, 1):
        echo(f"fold {n} of {len(builds)}: build with {len(build.tasks)} tasks" + ", already built" * (not estimate))
        for line in estimate.to_lines() if estimate else ():
            echo(f"  {line}")


def _print_estimate(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    from sglora_cli.system.progress import span

    least, most = facts["images_at_least"], facts["images_to_encode"]
    many = f"{most}" if least == most else f"{least} to {most}"
    lines = [
        f"pack      {facts['pack']}",
        f"tasks     {len(facts['tasks'])}: {', '.join(facts['tasks'])}",
        f"methods   {len(facts['methods'])}: {', '.join(facts['methods'])}",
        f"adapters  {facts['adapters']}",
        f"images    {many} to encode, {facts['images_known']} cached",
        f"time      {span(*facts['seconds_range'])} at {facts['images_per_second']} images/s (measured just now)",
    ]
    print_lines(lines)
