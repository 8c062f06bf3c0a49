"""`sglora data check`: counts the contents of a data set and finds problems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import (
    App,
    backbone_option,
    dataset_argument,
    dataset_folder,
    json_option,
    path_option,
    report_option,
)
from sglora_cli.cli.output import echo, marked, print_json, print_rows, say, shortened
from sglora_cli.config import CheckConfig, options_of
from sglora_cli.data.check_rules import CaptionCount
from sglora_cli.files.escape import printable
from sglora_cli.system import settings
from sglora_cli.system.display import counted

if TYPE_CHECKING:
    from sglora_cli.data.check import DataCheck
    from sglora_cli.data.pictures import Pair


@click.command("check")
@dataset_argument()
@path_option()
@click.option(
    "--recipe",
    default="",
    help="Also check that the data has what this recipe (name or .toml file) needs.",
    shell_complete=completion.names(completion.recipes, files=True),
)
@backbone_option("Backbone whose token limit applies to captions. Default: the recipe's, else the setting `backbone`.")
@options_of(CheckConfig)
@click.option(
    "--top", type=click.IntRange(min=0), default=5, show_default=True, help="Number of examples to show per finding."
)
@report_option()
@json_option()
@click.pass_obj
def check(
    app: App,
    dataset: str,
    path: Path | None,
    recipe: str,
    backbone: str,
    top: int,
    report: Path | None,
    as_json: bool,
    config: CheckConfig,
) -> None:
    """Count the contents of a data set and find problems.

    The command decodes every image. It lists problems that would harm training or measuring, and files that the data
    set ignores. `sglora data list` shows the names for DATASET. The exit code is 4 if an image does not decode or a
    caption is empty, and 0 if there are only warnings. With --recipe, the command fails with the same error as
    `sglora pack build` would for this data.

    \b
    sglora data check folder --path photos --report photos.html
    sglora data check folder --path data/flowers --recipe starter
    """
    from sglora_cli.data import check as data_check
    from sglora_cli.data.check import partial_text
    from sglora_cli.data.overlaps import SAID, overlap_lines
    from sglora_cli.files.atomic import write_bytes

    root, needs = dataset_folder(path, dataset), None
    if recipe:
        from sglora_cli.build.prerequisites import needs_of
        from sglora_cli.pack.recipe import path_of
        from sglora_cli.pack.recipe_parser import read

        content = read(app.library.recipe_file(recipe))
        root = path or dataset_folder(path, path_of(content, dataset))
        needs = needs_of(app.host, content, dataset, root)
    if backbone:
        app.host.backbones[backbone]  # a recipe's backbone need not be installed here
    reader = backbone or (needs.backbone if needs else "") or settings.load().backbone
    result = data_check.run(app.host, dataset, root, needs, config, reader)
    if report:
        from sglora_cli.report.pages import check_page

        write_bytes(report, check_page(result))
    if as_json:
        print_json(data_check.to_json(result) | {"report": str(report) if report else None})
    else:
        _print_counts(result)
        _print_findings(result, top)
        if result.partial:
            echo(f"partial: {partial_text(dataset, result.partial)}; the others are in no task")
        for one in result.passed_over:
            echo(f"ignored: {one}")
        for line in overlap_lines(result.overlaps):
            echo(f"overlap: {line}")
        _print_some([(SAID[one.kind], str(one)) for one in result.overlaps[:top]])
        echo(result.verdict)
        if result.limit.reason:
            say(f"caption tokens are not counted: {result.limit.reason}")
        if report:
            say(f"report     {report}")
    if error := data_check.error_of(result):
        raise error


def _print_counts(result: DataCheck) -> None:
    splits = list(dict.fromkeys(split for counts in result.counts.values() for split in counts))
    rows = []
    classes = {task.name: len(task.classes) for task in result.tasks}
    for task, counts in result.counts.items():
        images = [f"{counts[split].images if split in counts else 0} {split}" for split in splits]
        captions = _captions(CaptionCount.of(counts.values()))
        content = (counted(classes[task], "class", "classes"), "") if classes[task] else captions
        rows.append([printable(task), *images, *content])
    print_rows(("task", *splits, "captions", "fewest / mean / most"), rows)
    total = (counted(len(result.tasks), "task"), counted(result.total.images, "image"))
    echo(", ".join([*total, *_captions(result.total)]))
    if result.splits_note:
        echo(result.splits_note)


def _captions(count: CaptionCount) -> tuple[str, str]:
    return counted(count.captions, "caption"), f"{count.fewest} / {count.mean:.1f} / {count.most} per image"


def _print_findings(result: DataCheck, top: int) -> None:
    for key, kind, count in result.kinds():
        echo(marked(f"{kind.level}: {kind.title}: {count}"))
        rows = [(problem.where, shortened(problem.text)) for problem in result.problems if problem.kind == key]
        rows += [(pair.how, _both(pair)) for pair in result.pairs if pair.kind == key]
        _print_some(rows[:top])
        if len(rows) > top:
            echo(f"  ... and {len(rows) - top} more")
    if result.common and top:
        echo(f"captions shared by several images: {len(result.common)}; most common:")
        some = [(counted(one.images, "image"), counted(one.tasks, "task"), one.caption) for one in result.common[:top]]
        _print_some([(f"{images}, {tasks}", shortened(caption)) for images, tasks, caption in some])


def _both(pair: Pair) -> str:
    if pair.first is not pair.second:
        return f"{pair.first.name} = {pair.second.name}"
    return f"{pair.first.name}: {'; '.join(', '.join(place) for place in pair.first.places)}"


def _print_some(rows: list[tuple[str, str]]) -> None:
    print_rows(
        ("where", "what"), [["  " + printable(first), printable(second)] for first, second in rows], words=("what",)
    )
