"""`sglora bench` measures methods on tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sglora_cli.adapter.library import found
from sglora_cli.bench.paper import PAPER
from sglora_cli.cli import completion
from sglora_cli.cli.completion import names
from sglora_cli.cli.options import (
    PATH,
    App,
    backbone_option,
    check_present,
    data_option,
    dry_run_option,
    executor_option,
    json_option,
    not_empty,
    out_option,
    pack_option,
    pulls,
    reporter_option,
    table_name,
)
from sglora_cli.cli.output import echo, print_json, print_lines, say
from sglora_cli.config import ABLATIONS, TASK_TABLES, BenchConfig, OneOf, RuntimeConfig, StepConfig, options_of
from sglora_cli.plugin.values import TRAINING, UNSEEN
from sglora_cli.system.display import counted

if TYPE_CHECKING:
    from sglora_cli.bench.methods import BenchPlan
    from sglora_cli.build.estimate import Estimate
    from sglora_cli.build.pipeline import Build
    from sglora_cli.plugin.contracts import Executor


@click.command("bench")
@click.option(
    "--baselines",
    default="paper",
    callback=not_empty,
    show_default=True,
    help=f"Comma-separated methods to measure. Use paper for those of the paper's table ({', '.join(PAPER)}), or all "
    "for every method that can run, which takes many times longer. Add the pack's default generator by name if it is "
    "not among them, as in paper,all-but-the-task.",
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
    help="Use only tasks of this data set, from its photos if a data folder is set. Default: all data sets.",
    shell_complete=names(completion.datasets),
)
@data_option("Measure from photos in this folder instead of the pack's data. With --dataset, SGLORA_DATA works too.")
@click.option(
    "--tasks",
    default="",
    help="Use only these tasks, given as comma-separated names or keys. Default: all tasks.",
    shell_complete=names(completion.unseen_tasks, commas=True),
)
@click.option(
    "--role",
    type=OneOf("role", [UNSEEN, TRAINING]),
    default=UNSEEN,
    show_default=True,
    help="Role of the tasks to measure on. Use training to choose settings without unseen tasks; this needs --data.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    help="Cross-validate over tasks. The pack's recipe is built this many times, each time without some of its tasks, "
    "and measured on those tasks. Needs the photos (--data or SGLORA_DATA).",
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
    "--own-expert", is_flag=True, help="Allow tasks that the pack has seen, although their results leak training data."
)
@options_of(BenchConfig)
@options_of(RuntimeConfig, "runtime")
@executor_option()
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
    executor: Executor,
    step: StepConfig,
    **request: Any,
) -> None:
    """Measure methods on unseen tasks.

    Methods are the pack's generators, merging rules, and references such as zero-shot. Recall (or accuracy) is measured
    within each task and averaged over tasks.

    \b
    sglora bench
    sglora bench --baselines all --dry-run
    sglora bench --dataset flowers --as markdown -o table.md
    sglora bench --pack birds --on flowers --rows rows.jsonl
    sglora bench --table ablation-k --baselines top-k,cvae
    sglora bench --adapter pug-peft/ --tasks pug
    sglora bench --role training --data data --table ablation-k
    sglora bench --baselines all --executor ray
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
    from sglora_cli.bench.job import Elsewhere
    from sglora_cli.bench.measure import Measurer
    from sglora_cli.bench.plan import bench_plan
    from sglora_cli.bench.rows_file import log_of
    from sglora_cli.files.atomic import write_bytes

    note = (lambda text: None) if as_json else say
    planner: partial[BenchPlan] = partial(bench_plan, request=bench_request, config=config, runtime=runtime)
    if folds:
        from sglora_cli.build.folds import Folds, plan_of_folds

        work = Folds.of(app.host, bench_request, folds, runtime, note, executor, step)
        if dry_run:
            _print_builds(work.estimates(), as_json)
            return
        plan = work.plan(config)
        planner = partial(plan_of_folds, request=bench_request, count=folds, config=config, runtime=runtime)
    else:
        plan = planner(app.host)
    measurer = Measurer(plan.model, runtime.precision, fresh)
    if dry_run:
        _print_estimate(run.estimate(plan, measurer), as_json)
        return
    planner = partial(planner, runtime=replace(runtime, device=plan.model.device.type))
    elsewhere = Elsewhere.of(executor, step, plan, planner, note)
    with log_of(rows, plan.header(" ".join(["sglora bench", *sys.argv[2:]]), request["table"])) as log:
        measured = run.run(plan, measurer, log, elsewhere)
    if not as_json:
        say(f"{counted(measurer.count.encoded, 'image')} encoded, {measurer.count.saved} saved, rows in {log.path}")
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
        echo(
            f"fold {n} of {len(builds)}: build with {counted(len(build.tasks), 'task')}"
            + ", already built" * (not estimate)
        )
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
