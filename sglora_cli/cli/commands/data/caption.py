"""`sglora data caption`: writes captions for a data set, by a model or from a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import (
    PATH,
    App,
    backbone_option,
    dataset_argument,
    dataset_folder,
    dry_run_option,
    force_option,
    json_option,
    out_option,
    path_option,
    yes_option,
)
from sglora_cli.cli.output import confirm, echo, fail, print_json, print_rows, say, shortened
from sglora_cli.config import CaptionConfig, RuntimeConfig, options_of
from sglora_cli.errors import UsageError
from sglora_cli.files.escape import printable
from sglora_cli.plugin.contracts import ChecksText
from sglora_cli.system import settings
from sglora_cli.system.display import counted

if TYPE_CHECKING:
    from sglora_cli.data.caption_cost import CaptionEstimate
    from sglora_cli.data.caption_writer import CaptionJob, Outcome


_SHOWN = 5  # problems shown per kind


@click.command("caption")
@dataset_argument()
@path_option()
@out_option("File for the captions. Default: captions.jsonl in the data set's folder.", "--output")
@click.option(
    "--captioner",
    default="qwen2-vl",
    show_default=True,
    help="Captioner to use; see `sglora plugins list`.",
    shell_complete=completion.names(completion.captioners),
)
@click.option(
    "--demonstrations",
    type=PATH,
    help='JSON Lines file of example captions: {"name": ..., "caption": ...}. Default: built-in examples.',
)
@options_of(CaptionConfig)
@backbone_option("Warn about captions that this backbone's text encoder would truncate.")
@click.option("--from", "source", type=PATH, help="Import captions from this .jsonl, .csv or .json file.")
@force_option("With --from: replace existing captions.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Stop after captioning this many images; 0 captions all.",
)
@dry_run_option("Only print what would be done and what the captioner needs (download, memory, time per photo).")
@yes_option()
@options_of(RuntimeConfig, "runtime")
@json_option()
@click.pass_obj
def caption(
    app: App,
    dataset: str,
    path: Path | None,
    out: Path | None,
    captioner: str,
    demonstrations: Path | None,
    backbone: str,
    source: Path | None,
    force: bool,
    limit: int,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    config: CaptionConfig,
    runtime: RuntimeConfig,
) -> None:
    """Write captions for the images of DATASET that have none.

    A captioner writes them, or --from imports them from a file. The command appends to captions.jsonl line by line, so
    you can interrupt it and resume with the same command. Captions that are empty, too short, refusals or repetitions
    are rejected and retried. Each line records the captioner and its settings in "by", and one file uses only one
    combination of them.

    As soon as the file exists, it replaces captions that come with a data set (coco). Use -o to write an unfinished
    file elsewhere. Without a GPU the command asks before it downloads a model. The captioner `names` needs no model and
    writes names and colours. The exit code is 4 if an image does not decode or gets no caption. The other images still
    get theirs.

    \b
    sglora data caption pets --path data/oxford-iiit-pet --dry-run
    sglora data caption pets --path data/oxford-iiit-pet --limit 10
    sglora data caption folder --path data/photos --captioner names
    sglora data caption flowers --path data/flowers-102 --from captions.csv
    """
    from sglora_cli.data import caption_cost, caption_writer

    if force and not source:
        raise UsageError(
            "--force requires --from", "to caption images again, delete their lines from the captions file"
        )
    if limit and source:
        raise UsageError(
            "--limit cannot be combined with --from", "leave out --limit, because a file is always imported in full"
        )
    root = dataset_folder(path, dataset)
    job = caption_writer.caption_job(app.host, dataset, root, out, hide_table=bool(source))
    way = partial(caption_cost.other_way, app.host, dataset, root, captioner, out)
    if source:
        outcome = caption_writer.take_captions(job, source, config, force, dry_run)
    else:
        write = _writer(app, captioner, demonstrations, backbone, runtime)
        waiting = job.waiting(limit)
        known = caption_cost.estimate(app.host, captioner, runtime, waiting, config.captions) if waiting else None
        if dry_run:
            return _print_plan(app, job, limit, as_json, known, way)
        if known:
            _ask_before_download(known, yes, way, as_json)
        outcome = write(job, config, limit)
    print_json(outcome.to_json()) if as_json else _print_outcome(outcome)
    if error := caption_writer.error_of(outcome):
        raise error
    return None


def _writer(
    app: App, captioner: str, demonstrations: Path | None, backbone: str, runtime: RuntimeConfig
) -> Callable[[CaptionJob, CaptionConfig, int], Outcome]:
    """Return a function that writes captions with a captioner.

    Names and files are checked immediately. Models are loaded only if there are images to caption.
    """
    from sglora_cli.data import caption_text, caption_writer

    plugin = app.host.captioners[captioner]
    reader = app.host.backbones[backbone] if backbone else None
    examples = caption_text.read_demonstrations(demonstrations) if demonstrations else caption_text.DEMONSTRATIONS

    def write(job: CaptionJob, config: CaptionConfig, limit: int) -> Outcome:
        if not job.waiting(limit):
            return caption_writer.Outcome(job)
        text_model = reader.load(settings.runtime(RuntimeConfig(), backbone)) if reader else None
        model = plugin.load(settings.runtime(runtime, captioner))
        check_text = text_model.check_text if isinstance(text_model, ChecksText) else None
        by = caption_writer.signature(captioner, runtime.weights, config, examples)
        return caption_writer.write_captions(job, model, config, examples, limit, check_text, by)

    return write


def _ask_before_download(known: CaptionEstimate, yes: bool, way: Callable[[], str], as_json: bool) -> None:
    """Without a GPU, print what a model costs and ask before a download. Raises UsageError if the user declines."""
    from sglora_cli.system.progress import size

    if not known.slow or known.cost.lacks:  # loading the model reports what is missing
        return
    for line in [] if as_json else _cost_lines(known, way):
        say(line)
    if known.cost.download_bytes:
        what = f"{size(known.cost.download_bytes)} to caption {counted(known.photos, 'photo')} without a GPU"
        hint = f"run {other} for captions of names and colours, or pass --yes" if (other := way()) else "pass --yes"
        confirm(what, yes, hint, "download", "downloaded")


def _cost_lines(known: CaptionEstimate, way: Callable[[], str]) -> list[str]:
    """Return lines with a captioner's cost and, if it is slow, the command that needs no model."""
    lines = known.to_lines()
    if known.slow and (other := way()):
        lines += ["no GPU     write captions of names and colours without a model:", f"  {other}"]
    return lines


def _print_plan(
    app: App, job: CaptionJob, limit: int, as_json: bool, known: CaptionEstimate | None, way: Callable[[], str]
) -> None:
    from sglora_cli.data import caption_writer
    from sglora_cli.data.check import passed_over

    waiting = job.waiting(limit)
    over = passed_over(app.host.datasets[job.dataset], job.root, but={one.image for one in job.listed})
    if as_json:
        facts = caption_writer.job_json(job) | {"waiting": len(job.waiting()), "now": len(waiting)}
        cost = known.to_json() | {"other_way": way() if known.slow else ""} if known else None
        print_json(facts | {"passed_over": [one.to_json() for one in over], "cost": cost})
        return
    echo(f"output     {job.target}")
    echo(f"images     {len(job.listed)}, {len(job.done)} already captioned, {len(waiting)} to caption now")
    tasks = Counter(task for one in waiting for task in one.tasks)  # an image in several tasks counts in each
    print_rows(("task", "images"), [["  " + printable(task), str(count)] for task, count in sorted(tasks.items())])
    for one in over:
        echo(f"ignored: {one}")
    for line in _cost_lines(known, way) if known else []:
        echo(line)


def _print_outcome(outcome: Outcome) -> None:
    from sglora_cli.data.caption_text import CAPTION_ISSUES, REASONS

    job = outcome.job
    echo(f"output     {job.target}")
    echo(f"images     {len(job.listed)}, {len(job.done)} already captioned, {outcome.written} now, {outcome.left} left")
    mean = f", {outcome.captions / outcome.written:.1f} per image" if outcome.written else ""
    echo(f"captions   {outcome.captions} written{mean}")
    if outcome.refused:
        reasons = ", ".join(f"{outcome.refused[key]} {text}" for key, text in REASONS.items() if outcome.refused[key])
        echo(f"rejected   {counted(outcome.refused.total(), 'caption')}: {reasons}")
    for kind, title in CAPTION_ISSUES.items():
        problems = [one for one in outcome.problems if one.kind == kind]
        if problems:
            say(f"warning: {title}: {len(problems)}")
        for one in problems[:_SHOWN]:
            fail(f"  {one.image}  {shortened(one.text)}")
        if len(problems) > _SHOWN:
            fail(f"  ... and {len(problems) - _SHOWN} more")
