"""`sglora pack build`: builds a pack from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import (
    PATH,
    App,
    backbone_option,
    data_option,
    dry_run_option,
    executor_option,
    force_option,
    json_option,
    out_option,
)
from sglora_cli.cli.output import echo, print_json, say
from sglora_cli.config import RuntimeConfig, StepConfig, options_of
from sglora_cli.plugin.values import EXPERT, TRAINING, UNSEEN
from sglora_cli.system import settings
from sglora_cli.system.display import counted

if TYPE_CHECKING:
    from sglora_cli.build.estimate import Estimate
    from sglora_cli.build.pipeline import Build
    from sglora_cli.plugin.contracts import Executor


@click.command("build")
@click.argument("recipe", shell_complete=completion.names(completion.recipes, files=True))
@data_option()
@out_option("Folder for the pack. Default: a folder in the user cache.")
@backbone_option("Build for this backbone instead of the recipe's.")
@click.option(
    "--limit", type=click.IntRange(min=1), help="Use only this many tasks of each role and source. Default: all."
)
@dry_run_option("Only print what would be done, how long it takes and what it needs.")
@click.option("--log", type=PATH, help="Append a log in JSON Lines to this file.")
@force_option("Start even if memory or disk space looks insufficient.")
@options_of(RuntimeConfig, "runtime")
@executor_option()
@json_option()
@click.pass_obj
def build(
    app: App,
    recipe: str,
    data: Path | None,
    out: Path | None,
    backbone: str,
    limit: int | None,
    dry_run: bool,
    log: Path | None,
    force: bool,
    as_json: bool,
    runtime: RuntimeConfig,
    executor: Executor,
    step: StepConfig,
) -> None:
    """Build the pack that RECIPE describes.

    RECIPE is a name listed by `sglora pack recipes`, or a .toml file. Before it starts, the command lists all missing
    data, captions, weights and packages, with their sizes and the commands that get them. Run the same command again to
    resume an interrupted build, which produces identical files.

    \b
    sglora pack build coco --data DIR --dry-run
    sglora pack build coco --data DIR
    sglora pack build coco --data DIR --limit 4   # a quick trial named coco-limit-4
    sglora pack build coco --data DIR --executor ray
    """
    from sglora_cli.pack.recipe_parser import limited, read, with_backbone
    from sglora_cli.system.paths import data_folder

    content = read(app.library.recipe_file(recipe))
    if backbone:
        app.host.backbones[backbone]  # raises an error about the option, not about the recipe
        content = with_backbone(content, backbone)
    if limit:
        content = limited(content, limit)
    from sglora_cli.build.prerequisites import plan_tasks

    plan = plan_tasks(app.host, content, data, runtime)
    root, note = data_folder(data, settings.load().data), (lambda text: None) if as_json else say
    from sglora_cli.build import pipeline
    from sglora_cli.build.data_notes import say_what_is_not_seen

    work = pipeline.Build.prepare(
        app.host, content, root, note, out, runtime, log, plan=plan, executor=executor, step=step
    )
    unseen = say_what_is_not_seen(app.host, content, root, [t.task for t in work.tasks], note)
    estimate = work.estimate()
    if dry_run:
        if as_json:
            print_json({**work.to_json(), **estimate.to_json(), **unseen})
        else:
            _print_estimate(work, estimate)
        return
    if not force:
        estimate.check()
    for line in estimate.to_lines():
        note(line)
    folder = work.run()
    print_json({"folder": str(folder), **unseen}) if as_json else echo(folder)


_NOUNS = {EXPERT: "expert", TRAINING: "training task", UNSEEN: "unseen task"}


def _print_estimate(work: Build, estimate: Estimate) -> None:
    facts = work.to_json()
    roles = ", ".join(
        f"{counted(c['tasks'], _NOUNS[role])} ({counted(c['photos'], 'photo')})" for role, c in facts["roles"].items()
    )
    echo(f"pack {facts['recipe']!r} for backbone {facts['backbone']!r}: {roles}")
    for line in (*work.task_lines(), *estimate.to_lines()):
        echo(line)
