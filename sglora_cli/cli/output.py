"""What commands print: tables for people, JSON for programs, lines beside the results.

Lists are a table on a terminal and plain aligned lines elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from sglora_cli.errors import UsageError
from sglora_cli.system.display import counted as counted

if TYPE_CHECKING:
    from sglora_cli.files.passed_over import PassedOver
    from sglora_cli.search.photos import PhotoList


def printable(text: str) -> str:
    """The text with control characters escaped: a name from a stranger's file must not steer the terminal.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, width: int = 110) -> str:
    """
    >>> shortened("a caption of many words", width=12)
    'a caption...'
    """
    return text if len(text) <= width else text[: width - 3] + "..."


_READABLE = 12
"""Letters that a cell of words has in a line at least, beside cells that stay on one line."""


def print_rows(header: Sequence[str], rows: Sequence[Sequence[str]], whole: Collection[str] = ()) -> None:
    """Print rows of cells on standard output; the header is for terminals only, programs pass --json.

    whole: columns whose cells stay on one line. In a terminal too narrow for these, lines are longer than it.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="" if os.environ.get("NO_COLOR") else "bold", pad_edge=False)
        for name in header:  # in a narrow terminal cells grow in height, nothing is cut
            table.add_column(name, overflow="fold", no_wrap=name in whole)
        for row in rows:
            table.add_row(*map(Text, row))  # a bare str would be read as markup: [/x] is a file name here
        width, height = shutil.get_terminal_size()  # both are said, or rich takes 80 columns on a dumb terminal
        widest = [max(map(len, cells)) for cells in zip(header, *rows, strict=True)]
        least = [wide if name in whole else min(wide, _READABLE) for name, wide in zip(header, widest, strict=True)]
        needed = sum(least) + 2 * (len(least) - 1) if whole else 0
        Console(width=max(width, needed), height=height).print(table, crop=False)
        return
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(header))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(content: Mapping[str, Any], lines: bool = False) -> None:
    """Print one JSON object on standard output; on one line where more of them follow."""
    click.echo(json.dumps(content, indent=None if lines else 1))


def paragraph(text: str, start: str = "") -> str:
    """The text after `start`, on a terminal in lines that fit its width and stand below each other; else on one line.

    Words are not broken: a path is copied as a whole.
    """
    if not sys.stdout.isatty():
        return start + text
    return textwrap.fill(
        text,
        max(shutil.get_terminal_size().columns, len(start) + 20),
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def say(text: str) -> None:
    """One line to the user beside the results."""
    click.echo(printable(text), err=True)


def say_passed_over(passed_over: Iterable[PassedOver]) -> None:
    """A line for each reason why something of a folder is not read."""
    for one in passed_over:
        say(f"passed over: {one}")


def say_photos(photos: PhotoList, skipped: Iterable[str]) -> None:
    """What of a folder of photos is not looked at, and why."""
    say_passed_over(photos.passed_over)
    for reason in skipped:
        say(f"warning: {reason}; it is left out")


def confirm(what: str, yes: bool, hint: str = "pass --yes") -> None:
    """Ask before something is removed, unless `yes`. Raises UsageError if the answer is no, or if nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"nobody can be asked whether to remove {what}", hint)
    if not click.confirm(f"remove {what}?", err=True):
        raise UsageError("nothing was removed")
