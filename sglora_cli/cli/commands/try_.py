"""`sglora try`: what an adapter does to a ranking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sglora_cli.cli.options import PATH, App, backbone_option, check_present, json_option, report_option
from sglora_cli.cli.output import print_json, print_rows, say, say_passed_over
from sglora_cli.config import RuntimeConfig, options_of
from sglora_cli.errors import UsageError

if TYPE_CHECKING:
    from sglora_cli.bench.ranking import Comparison, Ranking
    from sglora_cli.files.passed_over import PassedOver


@click.command("try")
@click.argument("adapter", type=PATH)
@click.option("--images", type=PATH, help="Folder of images to rank for each sentence.")
@click.option("--image", multiple=True, type=PATH, help="Image to rank the sentences for; several times.")
@click.option("--text", multiple=True, help="Sentence; several times. The adapter's own description by default.")
@click.option("--texts", type=PATH, help="File with one sentence a line.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Items to show of a ranking.")
@report_option()
@backbone_option("Backbone to try it on; the one it was made for by default.")
@options_of(RuntimeConfig, "runtime")
@json_option()
@click.pass_obj
def command(
    app: App,
    adapter: Path,
    images: Path | None,
    image: tuple[Path, ...],
    text: tuple[str, ...],
    texts: Path | None,
    top: int,
    report: Path | None,
    backbone: str,
    as_json: bool,
    runtime: RuntimeConfig,
) -> None:
    """Rank images or sentences with and without an adapter.

    Images are ranked for each sentence, or sentences for each image. ADAPTER is in any format that `sglora import`
    reads.

    \b
    sglora try pug.safetensors --images photos --text "a pug with a black mask" --report pug.html
    sglora try pug.safetensors --image dog.jpg --text "a pug" --text "a bulldog"
    """
    if (images is None) == (not image):
        raise UsageError("name the images to look at, in one way", "pass --images DIR, or --image FILE with sentences")
    check_present(adapter)
    from sglora_cli.files.atomic import write_bytes
    from sglora_cli.files.images import image_files, printable_name

    passed_over: list[PassedOver] = []
    if images:
        photos, passed_over = image_files(images, "pass --images DIR, or --image FILE for a single image")
    else:
        photos = {printable_name(path): path for path in image}
    from sglora_cli.bench import ranking as rankings

    ranked = "images" if images else "sentences"
    comparison = rankings.run(app.host, adapter, photos, ranked, text, texts, backbone, runtime)
    if report:
        from sglora_cli.report.pages import try_page

        write_bytes(report, try_page(comparison, top))
    if as_json:
        facts = {"passed_over": [one.to_json() for one in passed_over], "report": str(report) if report else None}
        print_json(rankings.to_json(comparison, top) | facts)
    else:
        say_passed_over(passed_over)
        _print_comparison(comparison, top)
        if report:
            say(f"report     {report}")


def _print_comparison(comparison: Comparison, top: int) -> None:
    say(f"adapter    {comparison.adapter}, made for {comparison.metadata.get('description', 'an unknown task')!r}")
    say(f"backbone   {comparison.backbone}, fingerprint {comparison.fingerprint}")
    for reason in comparison.skipped:
        say(f"warning: {reason}; it is left out")
    for ranking in comparison.rankings:
        _print_ranking(ranking, comparison.ranked, top)


def _print_ranking(ranking: Ranking, ranked: str, top: int) -> None:
    change, width = ranking.change(top), len(str(len(ranking.items)))
    click.echo(f"{ranking.query!r}: {change.top} of {len(ranking.items)} {ranked}, rank and score without -> with")
    rows = [
        [
            f"{int(ranking.rank_before_I[i]):>{width}} -> {int(ranking.rank_after_I[i]):>{width}}",
            f"{float(ranking.before_I[i]):6.3f} -> {float(ranking.after_I[i]):6.3f}",
            ranking.items[i],
        ]
        for i in ranking.top(top)
    ]
    print_rows(("rank", "score", ranked), rows, words=(ranked,))
    correlation = "undefined" if change.correlation is None else f"{change.correlation:.3f}"
    click.echo(
        f"change: {change.score:.4f} a score; {change.moved} of the top {change.top} moved, {change.entered} "
        f"came in; rank correlation {correlation}"
    )
