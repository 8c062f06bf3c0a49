"""`sglora report`: shows measured rows as a page, figures or text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sglora_cli.cli.options import (
    PATH,
    App,
    data_option,
    json_option,
    out_option,
    pack_option,
    page_name,
    reporter_option,
)
from sglora_cli.cli.output import echo, print_json
from sglora_cli.config import BenchConfig, RuntimeConfig, options_of
from sglora_cli.errors import UsageError

if TYPE_CHECKING:
    from sglora_cli.report.content import Content
    from sglora_cli.report.load import Measured


@click.command("report")
@click.argument("rows", nargs=-1, required=True, type=PATH)
@click.option(
    "--over",
    type=click.Choice(["builds"]),
    help="Add means and intervals over several builds of one recipe, with one file of ROWS per build.",
)
@out_option("Write an HTML page with tables and figures to this file. Default: none.", callback=page_name)
@click.option("--figures", type=PATH, help="Write each figure as SVG and PNG to this folder. Default: none.")
@pack_option("Measured pack, for figures that need it. The figure of R@1 against K takes a minute.")
@data_option("Folder with the photos, for retrieval examples.")
@reporter_option("Reporter: table, markdown, latex, json or csv. Default: terminal in a terminal, table elsewhere.")
@options_of(BenchConfig, without=["wrong_sentences"])
@options_of(RuntimeConfig, "runtime")
@json_option()
@click.pass_obj
def command(
    app: App,
    rows: tuple[Path, ...],
    over: str | None,
    out: Path | None,
    figures: Path | None,
    pack: str,
    data: Path | None,
    reporter: str,
    as_json: bool,
    config: BenchConfig,
    runtime: RuntimeConfig,
) -> None:
    """Show measured rows as a page, figures or text.

    ROWS are files written by `sglora bench`. Without --out and --figures, the table is printed. Methods that were not
    measured on all tasks are left out.

    \b
    sglora report rows.jsonl --as markdown
    sglora report rows.jsonl -o report.html --pack starter --data data
    sglora report seed-0.jsonl seed-1.jsonl seed-2.jsonl --over builds
    """
    if data and not pack:
        raise UsageError("--data requires --pack", "pass --pack NAME too")
    if pack and not (out or figures):
        raise UsageError("--pack requires -o or --figures", "pass -o report.html, or --figures DIR")
    render = app.host.reporters[reporter or ("terminal" if sys.stdout.isatty() else "table")]
    from sglora_cli.report import load, plot

    if out or figures:
        plot.needs("matplotlib", "matplotlib")
    measured = load.read(rows, config, over == "builds")
    content = _content(app, measured, pack, data, config, runtime) if out or figures else None
    written = _write(content, out, figures) if content else []
    if as_json:
        missing = dict(content.missing or {}) if content else {}
        facts = {"written": [str(path) for path in written], "missing": missing, "left_out": list(measured.left_out)}
        print_json(facts)
    elif reporter or not content:
        click.echo(render.render(measured.report), nl=False)
    else:
        for path in written:
            echo(path)


def _content(
    app: App, measured: Measured, pack: str, data: Path | None, config: BenchConfig, runtime: RuntimeConfig
) -> Content:
    from sglora_cli.pack.loaded import LoadedPack
    from sglora_cli.report.content import collect

    loaded = LoadedPack.open(app.host, pack, runtime) if pack else None
    return collect(measured, loaded, data, config)


def _write(content: Content, out: Path | None, folder: Path | None) -> list[Path]:
    """Write the page and figures, after all of them are drawn."""
    from sglora_cli.files.atomic import write_bytes
    from sglora_cli.files.untrusted import inside
    from sglora_cli.report import plot

    files: dict[Path, bytes] = {}
    if out:
        from sglora_cli.report.pages import report_page  # Jinja2 loads only for a page

        files[out] = report_page(content)
    for figure in content.figures if folder else ():
        for ending, draw in (("svg", plot.svg), ("png", plot.png)):
            name = f"{figure.name}.{ending}"  # contains names from a data set, which are untrusted
            inside(folder or Path(), name)
            files[(folder or Path()) / name] = draw(figure.chart)
    for path, data in files.items():
        write_bytes(path, data)
    return list(files)
