"""`sglora docs`: the documentation, without a network."""

from __future__ import annotations

import json
import sys

import click

from sglora_cli import documents
from sglora_cli.printing import print_rows

_WIDEST = 100  # columns; longer lines are hard to read


@click.command("docs")
@click.argument("page", default="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: the pages, or PAGE and its text.")
def command(page: str, as_json: bool) -> None:
    """Show a PAGE of the documentation, or list the pages.

    At a terminal a page is laid out and paged; elsewhere it is printed as Markdown, as it is.

    \b
    sglora docs
    sglora docs tutorial
    sglora docs reference | grep -A 3 exit
    """
    if page:
        _show(documents.page(page), as_json)
        return
    pages = list(documents.pages().values())
    if as_json:
        facts = [{"name": one.name, "summary": one.summary, "file": str(one.path)} for one in pages]
        click.echo(json.dumps({"pages": facts}, indent=1))
    else:
        print_rows(("page", "what"), [[one.name, one.summary] for one in pages])


def _show(page: documents.Page, as_json: bool) -> None:
    if as_json:
        facts = {"name": page.name, "summary": page.summary, "file": str(page.path), "text": page.text}
        click.echo(json.dumps(facts, indent=1))
    elif sys.stdout.isatty():
        _page_out(page.text)
    else:
        click.echo(page.text, nl=False)


def _page_out(text: str) -> None:
    """Laid out for the terminal; through the user's pager where it is longer than the screen."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    console.width = min(console.width, _WIDEST)
    with console.capture() as captured:
        console.print(Markdown(documents.without_links(text), hyperlinks=False))
    laid_out = captured.get()
    if laid_out.count("\n") < console.height:
        click.echo(laid_out, nl=False)
    else:
        click.echo_via_pager(laid_out)
