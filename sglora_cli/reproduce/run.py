"""Run the remaining steps of a plan in order.

An interrupted step resumes: downloads at the last byte, captions at the last line, builds at their last step, and rows
from the log and the measurements in the user cache. Files in the results folder are written atomically.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sglora_cli.config import CaptionConfig
from sglora_cli.errors import Unavailable
from sglora_cli.files.atomic import write_bytes
from sglora_cli.plugin.contracts import Fetches
from sglora_cli.plugin.values import TRAIN
from sglora_cli.reproduce.comparison import Comparison, comparison_of
from sglora_cli.reproduce.job import Job
from sglora_cli.reproduce.keys import COMPARISON, built_packs, lean_key, report_key, rows_key
from sglora_cli.reproduce.plan import Plan, foreign
from sglora_cli.reproduce.requests import bench_request
from sglora_cli.reproduce.steps import CAPTIONS, DATA, PACK, PRIOR, REPORT, ROWS, WEIGHTS, Step
from sglora_cli.reproduce.targets import LEARNED, Lean, Measurement
from sglora_cli.system import settings

Note = Callable[[str], None]


def run(plan: Plan, note: Note, force: bool = False) -> Comparison:
    """Run the remaining steps and return the comparison. Errors propagate, and the next run reuses completed work."""
    job, left = plan.job, plan.left
    if left:
        job.mark_folder()
    for number, step in enumerate(left, 1):
        note(f"step {number} of {len(left)}: {step.key}")
        with _resumed_by(job, note):
            RUNNERS[step.kind](job, step, note, force)
    return comparison_of(job, *foreign(job))


@contextmanager
def _resumed_by(job: Job, note: Note) -> Iterator[None]:
    """Print the command that resumes the job if this block ends early."""
    try:
        yield
    except BaseException:
        note(f"hint: resume with: {job.command}")  # not wrapped, to be copied
        raise


def _weights(job: Job, step: Step, note: Note, force: bool) -> None:
    job.host.backbones[step.name].load(settings.runtime(job.runtime, step.name))


def _data(job: Job, step: Step, note: Note, force: bool) -> None:
    name, _ = job.data[step.name]
    dataset = job.host.datasets[name]
    if not isinstance(dataset, Fetches):
        raise Unavailable(f"sglora cannot download data set {name!r}", "put it into the data folder")
    unfinished = job.fetching(step.name)
    write_bytes(unfinished, b"")
    dataset.fetch(job.place, note)
    unfinished.unlink()


def _captions(job: Job, step: Step, note: Note, force: bool) -> None:
    from sglora_cli.data import caption_text, caption_writer

    name, config = job.request.captioner, CaptionConfig()
    work = caption_writer.caption_job(job.host, job.data[step.name][0], job.root(step.name))
    by = caption_writer.signature(name, "", config, caption_text.DEMONSTRATIONS)
    model = job.host.captioners[name].load(settings.runtime(replace(job.runtime, weights=""), name))
    outcome = caption_writer.write_captions(work, model, config, caption_text.DEMONSTRATIONS, by=by)
    if error := caption_writer.error_of(outcome):
        raise error


def _pack(job: Job, step: Step, note: Note, force: bool) -> None:
    from sglora_cli.build.pipeline import Build
    from sglora_cli.build.prerequisites import plan_tasks

    recipe = next(recipe for recipe in job.recipes.values() if recipe.name == step.name)
    tasks = plan_tasks(job.host, recipe, job.place, job.runtime)
    build = Build.prepare(job.host, recipe, job.place, note, runtime=job.runtime, plan=tasks)
    if step.seconds is None:  # the plan could not estimate it before the earlier steps
        estimate = build.estimate()
        if not force:
            estimate.check()
        for line in estimate.to_lines():
            note(line)
    build.run()


def _rows(job: Job, step: Step, note: Note, force: bool) -> None:
    from sglora_cli.bench import run as bench
    from sglora_cli.bench.measure import Measurer
    from sglora_cli.bench.plan import bench_plan
    from sglora_cli.bench.rows_file import log_of, row_line

    one = job.part(step.name)
    assert isinstance(one, Measurement)
    if one.captions:
        _write_sentences(job, one)
    plan = bench_plan(job.host, bench_request(job, one), job.config, job.runtime)
    header = plan.header(step.command, one.table)
    header = replace(header, more={**header.more, "reproduce": rows_key(job, one, built_packs(job))})
    measurer = Measurer(plan.model, job.runtime.precision)
    with log_of(None, header) as log:  # in the user cache, so the file here is complete or missing
        rows = bench.run(plan, measurer, log)
    target = job.rows_file(one.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, "".join([header.line(), *map(row_line, rows)]).encode())
    note(f"{measurer.count.encoded} images encoded, {measurer.count.saved} saved, rows in {target}")


def _write_sentences(job: Job, one: Measurement) -> None:
    """Write the sentences that describe each task: the first caption of every training image, unless it is too long."""
    from sglora_cli.data.text_limit import TextLimit

    name, path = one.source
    sentences = {}
    for task in job.host.datasets[name].tasks(job.place / path):
        first = [photo.captions[0] for photo in task.photos.get(TRAIN, ())]
        cut = TextLimit.of(job.host, job.recipes[one.recipe].backbone).cut(first).tokens
        sentences[task.name] = [text for text in first if text not in cut]
    target = job.sentences_file(one.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, (json.dumps(sentences, indent=1) + "\n").encode())


def _prior(job: Job, step: Step, note: Note, force: bool) -> None:
    from sglora_cli.pack.loaded import LoadedPack
    from sglora_cli.plugin.sentences import queries

    lean = job.part(step.name)
    assert isinstance(lean, Lean)
    loaded = LoadedPack.open(job.host, job.recipes[lean.recipe].name, job.runtime)
    sentence = job.recipes[lean.recipe].template.format(name=lean.task, classes="")
    (query,) = queries(loaded.model, [sentence])
    prior = loaded.pack.prior(query)
    names = [loaded.pack.experts.names[row] for row in prior.rows]
    facts = {
        "reproduce": lean_key(job, lean, built_packs(job)),
        "pack": loaded.pack.name,
        "sentence": sentence,
        "weights": dict(zip(names, prior.alpha_K.tolist(), strict=True)),
    }
    target = job.lean_file(lean.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, (json.dumps(facts, indent=1) + "\n").encode())


def _report(job: Job, step: Step, note: Note, force: bool) -> None:
    from sglora_cli.report import load
    from sglora_cli.report.content import collect
    from sglora_cli.report.pages import report_page

    for one in job.target.measurements:
        content = collect(load.read([job.rows_file(one.name)], job.config), None, None, job.config)
        write_bytes(job.page(one.name), report_page(content))
        note(str(job.page(one.name)))
    for path in _figures(job, note):
        note(str(path))
    comparison = comparison_of(job, *foreign(job))
    write_bytes(job.folder / "comparison.txt", comparison.to_text().encode())
    write_bytes(job.folder / "comparison.md", comparison.to_markdown().encode())
    facts = {"key": report_key(job), **comparison.to_json()}
    write_bytes(job.folder / COMPARISON, (json.dumps(facts, indent=1) + "\n").encode())


def _figures(job: Job, note: Note) -> Iterator[Path]:
    """Draw the target's maps of adapters and yield their files. A map that the pack does not allow is skipped."""
    if not job.target.figures:
        return
    from sglora_cli.pack.loaded import LoadedPack
    from sglora_cli.report import load, plot
    from sglora_cli.report.figures import ReportData, draw_maps, task_map

    for name in job.target.figures:
        one = job.part(name)
        assert isinstance(one, Measurement)
        measured = load.read([job.rows_file(name)], job.config)
        loaded = LoadedPack.open(job.host, job.recipes[one.recipe].name, job.runtime)
        data = ReportData(loaded, measured.report, job.config, measured.fingerprint, about=LEARNED)
        drawn = draw_maps(data) if one.tasks else [figure for figure in [task_map(data)] if figure]
        if not drawn:
            note(f"{name}: no map is drawn, because the pack has too few adapters or no Oracle")
        for figure in drawn:
            for ending, draw in (("svg", plot.svg), ("png", plot.png)):
                path = job.folder / "figures" / f"{name}-{figure.name}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, draw(figure.chart))
                yield path


RUNNERS: Mapping[str, Callable[[Job, Step, Note, bool], None]] = {
    WEIGHTS: _weights,
    DATA: _data,
    CAPTIONS: _captions,
    PACK: _pack,
    ROWS: _rows,
    PRIOR: _prior,
    REPORT: _report,
}
"""Kind of a step -> function that runs it."""
