"""`sglora search`: ranks a user's photos for a sentence."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sglora_cli.cli.options import (
    PATH,
    App,
    adapter_option,
    check_adapter,
    check_present,
    json_option,
    photos_argument,
    photos_backbone_option,
    report_option,
)
from sglora_cli.cli.output import print_json, print_rows, say
from sglora_cli.cli.photo_output import say_encoder, say_photos, say_written, written_json
from sglora_cli.config import RuntimeConfig, SearchConfig, options_of
from sglora_cli.errors import UsageError
from sglora_cli.files.images import printable_name

if TYPE_CHECKING:
    from sglora_cli.search.results import SearchResults


@click.command("search")
@photos_argument()
@click.argument("sentence", nargs=-1)
@adapter_option("Adapter for the photos' category; see `sglora list`. Default: none.")
@click.option("--like", type=PATH, help="Photo that shows what you look for, instead of or in addition to a sentence.")
@click.option(
    "--within",
    default="",
    metavar="SENTENCE",
    help='Sentence that fits all photos, such as "a photo of a pug". '
    "A part of its direction is removed from the query; see --strength.",
)
@options_of(SearchConfig)
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Number of photos to show.")
@click.option("--copy", type=PATH, metavar="DIR", help="Also copy these photos to a new folder.")
@report_option()
@photos_backbone_option()
@options_of(RuntimeConfig, "runtime", without=("compile", "checkpointing"))
@json_option()
@click.pass_obj
def command(
    app: App,
    photos: Path,
    sentence: tuple[str, ...],
    adapter: Path | None,
    like: Path | None,
    within: str,
    top: int,
    copy: Path | None,
    report: Path | None,
    backbone: str,
    as_json: bool,
    config: SearchConfig,
    runtime: RuntimeConfig,
) -> None:
    """Rank your photos for a sentence.

    PHOTOS is a folder, or a text file with one photo path per line (`-` reads the paths from standard input). Photo
    embeddings are cached, so the next search takes a second or two.

    \b
    sglora search photos "a pug on a sofa"
    sglora search photos "a pug on a sofa" --adapter pug.safetensors --report sofa.html
    sglora search photos "a pug on a sofa" --within "a photo of a pug" --top 20 --copy found
    sglora search photos --like pug.jpg
    """
    from sglora_cli.search.copies import check_new, copy_photos
    from sglora_cli.search.photos import check_few, photo_list

    if adapter:
        check_adapter(adapter)
    check_present(*filter(None, [like]))
    if copy:
        check_new(copy, photos)
    if not os.path.exists(photos) and sentence and os.path.isdir(sentence[-1]):
        command = shlex.join(["sglora", "search", sentence[-1], str(photos)])
        raise UsageError(f"{photos} does not exist", f"put the folder first: {command}")
    listed = photo_list(photos)
    check_few(listed)
    from sglora_cli.search.encoder import Encoder
    from sglora_cli.search.query import Query
    from sglora_cli.search.results import search

    query = Query.of(" ".join(sentence), like, within, config.strength)
    encoder = Encoder.of(app.host, adapter, backbone, runtime)
    results = search(encoder, listed.paths, query)
    best = results.best(top)
    if copy:
        width = len(str(len(best)))
        copy_photos(copy, [(f"{n:0{width}}-{path.name}", path) for n, path in enumerate(best, 1)])
    if report:
        from sglora_cli.files.atomic import write_bytes
        from sglora_cli.report.photo_pages import search_page

        write_bytes(report, search_page(results, top))
    if as_json:
        print_json(results.to_json(top) | written_json(listed, copy, report))
        return
    say_photos(listed, results.skipped)
    _print_results(results, top)
    say_written(copy, report)


def _print_results(results: SearchResults, top: int) -> None:
    ranking, encoder = results.ranking, results.encoder
    say_encoder(encoder)
    say(f"query      {results.query}")
    say(f"photos     {len(ranking.items)}" + f", {results.computed} embedded now" * bool(results.computed))
    for name in results.left_out:
        say(f"left out   {name}, the --like photo")
    rows = []
    for row in ranking.top(top):
        was = [f"{int(ranking.rank_before_I[row])}"] * bool(encoder.adapter)
        score = f"{float(ranking.after_I[row]):.3f}"
        path = printable_name(results.paths[ranking.items[row]])
        rows.append([f"{int(ranking.rank_after_I[row])}", *was, score, path])
    header = ("rank", *["without"] * bool(encoder.adapter), "score", "photo")
    print_rows(header, rows)
