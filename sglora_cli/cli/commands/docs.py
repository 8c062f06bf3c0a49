"""`sglora docs`: shows the documentation offline.

The pages are Markdown files in docs/, which are part of the package.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import click

import sglora_cli
from sglora_cli.cli.completion import names
from sglora_cli.cli.options import json_option
from sglora_cli.cli.output import print_json, print_rows
from sglora_cli.errors import UnknownName

FOLDER = Path(sglora_cli.__file__).parent / "docs"
_LINK = re.compile(r"\[([^\]`]*)\]\(([^)\s]+)\)")
SECTIONS = {
    "Start here": ("install", "tutorial"),
    "How to": (
        "how-to-search",
        "how-to-adapters",
        "how-to-data",
        "how-to-packs",
        "how-to-measure",
        "how-to-clip",
        "how-to-errors",
    ),
    "Reference": ("reference", "python"),
    "Method": ("method", "measures"),
    "Results": ("results", "results-generators", "results-appendix", "reproduce"),
    "Operations": ("security", "more-than-one-machine"),
    "Plugins": ("plugins",),
}
"""Order of the pages in a list, by section."""
INDEX = "README"
"""The list of pages as a page, for readers of the repository and of the site."""


@dataclass(frozen=True)
class Page:
    """A page. It starts with a heading and a one-line paragraph, its summary."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def summary(self) -> str:
        return next(line for line in self.text.splitlines()[1:] if line)


def all_pages() -> dict[str, Page]:
    """Return all pages by name, in the order of the sections. Pages without a section come last."""
    order = [name for section in SECTIONS.values() for name in section]
    found = {path.stem for path in FOLDER.glob("*.md")} - {INDEX}
    ordered = [name for name in order if name in found] + sorted(found - set(order))
    return {name: Page(name, FOLDER / f"{name}.md") for name in ordered}


def find_page(name: str) -> Page:
    """Return the page with this name, which may end in .md. Raises UnknownName."""
    known = all_pages()
    if (stem := name.removesuffix(".md")) not in known:
        raise UnknownName.of("page", name, known, "sglora docs")
    return known[stem]


def without_links(text: str) -> str:
    """Replace links to pages by their commands, and links to files by file names.

    >>> without_links("see [python](python.md#errors), [above](#files) and [README](../../README.md)")
    'see python (`sglora docs python`), above and README (`README.md`)'
    """
    return _LINK.sub(_plain, text)


def _plain(link: re.Match[str]) -> str:
    name, target = link[1], link[2].partition("#")[0]
    if not target:
        return name
    if target.startswith(("http://", "https://")):
        return f"{name} ({link[2]})"
    inside = "/" not in target and target.endswith(".md")
    return f"{name} (`{f'sglora docs {target[:-3]}' if inside else target.removeprefix('../../')}`)"


_WIDEST = 100  # columns, because longer lines are hard to read


@click.command("docs")
@click.argument("page", default="", shell_complete=names(lambda context: all_pages()))
@json_option()
def command(page: str, as_json: bool) -> None:
    """Show a PAGE of the documentation, or list the pages.

    In a terminal the page is formatted and shown in a pager. Elsewhere its Markdown source is printed.

    \b
    sglora docs
    sglora docs tutorial
    sglora docs reference | grep -A 3 exit
    """
    if page:
        _print_page(find_page(page), as_json)
        return
    pages = list(all_pages().values())
    if as_json:
        facts = [{"name": one.name, "summary": one.summary, "file": str(one.path)} for one in pages]
        print_json({"pages": facts})
    else:
        print_rows(("page", "summary"), [[one.name, one.summary] for one in pages], words=("summary",))


def _print_page(page: Page, as_json: bool) -> None:
    if as_json:
        facts = {"name": page.name, "summary": page.summary, "file": str(page.path), "text": page.text}
        print_json(facts)
    elif sys.stdout.isatty():
        _print_at_terminal(page.text)
    else:
        click.echo(page.text, nl=False)


def _print_at_terminal(text: str) -> None:
    """Print formatted Markdown, in the user's pager if it is longer than the screen."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    console.width = min(console.width, _WIDEST)
    with console.capture() as captured:
        console.print(Markdown(without_links(text), hyperlinks=False))
    laid_out = captured.get()
    if laid_out.count("\n") < console.height:
        click.echo(laid_out, nl=False)
    else:
        click.echo_via_pager(laid_out)
