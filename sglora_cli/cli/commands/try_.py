"""`sglora try`: compares rankings without and with an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sglora_cli.cli.options import ADAPTER, PATH, App, backbone_option, check_adapter, json_option, report_option
from sglora_cli.cli.output import echo, paragraph, print_json, print_rows, say, say_passed_over
from sglora_cli.config import RuntimeConfig, options_of
from sglora_cli.errors import UsageError
from sglora_cli.system.display import counted

if TYPE_CHECKING:
    from collections.abc import Collection

    from sglora_cli.search.comparison import Comparison
    from sglora_cli.search.photos import PhotoList
    from sglora_cli.search.ranking import Ranking
    from sglora_cli.search.relevance import Relevance


@click.command("try")
@click.argument("adapter", type=ADAPTER)
@click.option("--images", type=PATH, help="Folder of images to rank for each sentence.")
@click.option("--image", multiple=True, type=PATH, help="Image for which to rank the sentences; repeatable.")
@click.option("--text", multiple=True, help="Sentence; repeatable. Default: the adapter's own description.")
@click.option("--texts", type=PATH, help="File with one sentence per line.")
@click.option(
    "--relevant",
    default="",
    metavar="FILE|DIR|GLOB",
    help="Relevant photos, to measure how well they rank: a list file, a folder, or a pattern such as 'pug/*'.",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="Number of items to show per ranking."
)
@report_option()
@backbone_option("Backbone to use. Default: the one that the adapter was made for.")
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
    relevant: str,
    top: int,
    report: Path | None,
    backbone: str,
    as_json: bool,
    runtime: RuntimeConfig,
) -> None:
    """Compare how photos rank without and with an adapter.

    The command ranks images for each sentence (--images), or sentences for each image (--image). ADAPTER is in any
    format that `sglora import` reads. To find photos, use `sglora search`.

    \b
    sglora try pug.safetensors --images photos --text "a pug with a black mask" --report pug.html
    sglora try pug.safetensors --images photos --relevant "pugs/*"
    sglora try pug.safetensors --image dog.jpg --text "a pug" --text "a bulldog"
    """
    if (images is None) == (not image):
        raise UsageError(
            "pass either --images or --image, not both or neither", "pass --images DIR, or --image FILE with sentences"
        )
    if relevant and not images:
        raise UsageError("--relevant requires --images", "pass --images DIR, or leave out --relevant")
    check_adapter(adapter)
    from sglora_cli.files.images import image_files, printable_name
    from sglora_cli.search.photos import PhotoList

    if images:
        photos = PhotoList(images, *image_files(images, "pass a folder of photos, or --image FILE for a single image"))
    else:
        photos = PhotoList(Path(), {printable_name(path): path for path in image})
    chosen = _relevant(relevant, photos) if relevant else None
    from sglora_cli.search.comparison import compared, to_json
    from sglora_cli.search.encoder import Encoder
    from sglora_cli.search.relevance import judged

    encoder = Encoder.of_adapter(app.host, adapter, backbone, runtime)
    comparison = compared(encoder, photos.paths, "images" if images else "sentences", text, texts)
    relevance = judged(comparison, chosen) if chosen else None
    if report:
        from sglora_cli.files.atomic import write_bytes
        from sglora_cli.report.photo_pages import try_page

        write_bytes(report, try_page(comparison, top, relevance))
    if as_json:
        facts = {
            "passed_over": [one.to_json() for one in photos.passed_over],
            "report": str(report) if report else None,
        }
        print_json(to_json(comparison, top) | {"relevance": relevance.to_json() if relevance else None} | facts)
    else:
        say_passed_over(photos.passed_over)
        _print_comparison(comparison, top, chosen or ())
        if relevance:
            _print_relevance(relevance, len(comparison.rankings))
        if report:
            say(f"report     {report}")


def _relevant(relevant: str, photos: PhotoList) -> list[str]:
    """Return the names of the relevant photos."""
    from sglora_cli.search.relevance import relevant_photos

    names, strays = relevant_photos(relevant, photos.paths, photos.place)
    if strays:
        verb = "names" if len(strays) == 1 else "name"
        say(f"warning: {counted(len(strays), 'line')} in {relevant} {verb} no photo in {photos.place} ({strays[0]})")
    return names


def _print_relevance(relevance: Relevance, sentences: int) -> None:
    averaged = f", mean over {sentences} sentences" if sentences > 1 else ""
    echo(f"relevant: {len(relevance.relevant)} of {counted(relevance.of, 'photo')}{averaged}")
    rows = [[name, f"{before} -> {after}"] for name, before, after in relevance.rows()]
    print_rows(("measure", "without -> with"), rows)
    echo(paragraph(relevance.verdict))


def _print_comparison(comparison: Comparison, top: int, relevant: Collection[str]) -> None:
    say(f"adapter    {comparison.adapter}, made for {comparison.metadata.get('description', 'an unknown task')!r}")
    say(f"backbone   {comparison.backbone}, fingerprint {comparison.fingerprint}")
    for reason in comparison.skipped:
        say(f"warning: {reason} (skipped)")
    for ranking in comparison.rankings:
        _print_ranking(ranking, comparison.ranked, top, relevant)


def _print_ranking(ranking: Ranking, ranked: str, top: int, relevant: Collection[str]) -> None:
    change, width = ranking.change(top), len(str(len(ranking.items)))
    first = f"{change.top} of {len(ranking.items)} {ranked}"
    echo(paragraph(f"{ranking.query!r}: {first}, rank and score without -> with"))
    rows = [
        [
            f"{int(ranking.rank_before_I[i]):>{width}} -> {int(ranking.rank_after_I[i]):>{width}}",
            f"{float(ranking.before_I[i]):6.3f} -> {float(ranking.after_I[i]):6.3f}",
            *[("relevant" if ranking.items[i] in relevant else "")] * bool(relevant),
            ranking.items[i],
        ]
        for i in ranking.top(top)
    ]
    print_rows(("rank", "score", *["relevant"] * bool(relevant), ranked), rows, words=(ranked,))
    correlation = "undefined" if change.correlation is None else f"{change.correlation:.3f}"
    text = (
        f"change: {change.score:.4f} per score; {change.moved} of the top {change.top} moved, {change.entered} "
        f"entered; rank correlation {correlation}"
    )
    echo(paragraph(text))
