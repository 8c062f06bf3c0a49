"""What commands print: tables for people, JSON for programs, lines beside the results.

Lists are a table with a header in a terminal and plain aligned lines elsewhere. All colours of commands are here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.cells import cell_len, set_cell_size

from sglora_cli.errors import UsageError
from sglora_cli.system import progress

if TYPE_CHECKING:
    from sglora_cli.files.passed_over import PassedOver


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


_READABLE = 24
"""Letters that a column of words has at least beside other columns; in a narrower one words stand below their row."""
_INDENT, _GAP = "    ", "  "


def print_rows(header: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str] = ()) -> None:
    """Print rows of cells on standard output; the header is for terminals only, programs pass --json.

    words: columns of sentences, which wrap between words in a terminal. All other cells stay on one line, to be copied.
    Where too little room is left for the sentences, they stand below their row.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    if not rows:
        return
    if not sys.stdout.isatty():
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(header))]
        for row in rows:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    wraps = [name in words for name in header]
    widths = _widths([header, *rows], wraps, shutil.get_terminal_size().columns)
    if widths:
        _print_table(header, rows, widths)
    else:
        _print_stacked(header, rows, wraps)


def _widths(rows: Sequence[Sequence[str]], wraps: Sequence[bool], room: int) -> list[int]:
    """The width of each column in a terminal of so many letters; [] where a column of words gets too narrow."""
    widths = [max(map(cell_len, cells)) for cells in zip(*rows, strict=True)]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - room
    for n in sorted(range(len(widths)), key=lambda n: -widths[n]):
        if wraps[n] and over > 0:
            longest = max(cell_len(word) for row in rows for word in row[n].split() or [""])
            width = max(widths[n] - over, min(widths[n], max(_READABLE, longest)))
            over -= widths[n] - width
            widths[n] = width
    return widths if over <= 0 or not any(wraps) else []


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="" if os.environ.get("NO_COLOR") else "bold", pad_edge=False)
    for name, width in zip(header, widths, strict=True):
        table.add_column(name, width=width, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # a bare str would be read as markup: [/x] is a file name here
    # both are said, or rich takes 80 columns on a dumb terminal
    console = Console(width=sum(widths) + len(_GAP) * len(widths), height=len(rows) + 1)
    with console.capture() as capture:
        console.print(table, crop=False)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def _print_stacked(header: Sequence[str], rows: Sequence[Sequence[str]], wraps: Sequence[bool]) -> None:
    """Sentences stand below the other cells of their row."""
    short = [n for n, wrap in enumerate(wraps) if not wrap]
    named = sum(wraps) > 1
    widths = {n: max(cell_len(row[n]) for row in [header, *rows]) for n in short}
    click.echo(styled(_GAP.join(set_cell_size(header[n], widths[n]) for n in short).rstrip(), bold=True))
    for row in rows:
        click.echo(_GAP.join(set_cell_size(row[n], widths[n]) for n in short).rstrip())
        for n, wrap in enumerate(wraps):
            if wrap and row[n]:
                for line in paragraph(row[n], _INDENT + f"{header[n]}  " * named).split("\n"):
                    click.echo(styled(line, dim=True))


def print_json(content: Mapping[str, Any], lines: bool = False) -> None:
    """Print one JSON object on standard output; on one line where more of them follow."""
    click.echo(json.dumps(content, indent=None if lines else 1))


def paragraph(text: str, start: str = "", err: bool = False, hang: int = 0) -> str:
    """The text after `start`, in a terminal in lines that fit its width and stand below each other; else on one line.

    hang: how much further right all lines but the first begin. Words are not broken: a path is copied as a whole, and
    so is a command of this program that stands in brackets.
    """
    if not (sys.stderr if err else sys.stdout).isatty():
        return start + text
    filled = textwrap.fill(
        _COMMAND.sub(lambda command: command[0].replace(" ", _UNBROKEN), text),
        max(shutil.get_terminal_size().columns, len(start) + 20),
        initial_indent=start,
        subsequent_indent=" " * (len(start) + hang),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace(_UNBROKEN, " ")


_COMMAND = re.compile(r"\(sglora [^(),]+")
_UNBROKEN = "\u00a0"
"""A blank at which no line ends."""

_COLOURS = {
    **dict.fromkeys(("error:", "broken", "damaged", "failed"), "red"),
    **dict.fromkeys(("warning:", "missing"), "yellow"),
    **dict.fromkeys(("healthy", "ok"), "green"),
}
"""The first words of a line that matter, and their colours. Without colours the words say the same."""
_STAYS = ("error:", "warning:", "hint:")


def styled(text: str, err: bool = False, **style: Any) -> str:
    """The text in a style of click's, where the stream is a terminal that shows styles, and the user wants them."""
    stream = sys.stderr if err else sys.stdout
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else click.style(text, **style)


_LABEL = re.compile(r"[a-z]+(?: [a-z]+)?  +(?=\S)|[a-z]{10} | +")
"""A word or two with blanks behind, as in `backbone   starter` and `difference 0.1`, or what a line is indented by."""


def wrapped(line: str, err: bool = False) -> str:
    """The line, in a terminal on several, all but the first below what follows its label.

    >>> wrapped("made by    generator cvae of pack starter")
    'made by    generator cvae of pack starter'
    """
    label = found[0] if (found := _LABEL.match(line)) else ""
    return paragraph(line[len(label) :], label, err, hang=2 * label.isspace())


def print_lines(lines: Iterable[str]) -> None:
    """Print what a thing is, on standard output."""
    for line in lines:
        click.echo(marked(wrapped(printable(line))))


def marked(line: str, err: bool = False) -> str:
    """The line with its first word in colour, if it is one that matters."""
    word, rest = line.split(" ", 1) if " " in line else (line, "")
    if word == "hint:":
        word = styled(word, err, bold=True)
    elif word in _COLOURS:
        word = styled(word, err, bold=True, fg=_COLOURS[word])
    return f"{word} {rest}" if rest else word


def say(text: str) -> None:
    """One line to the user beside the results. With --quiet and --json only errors and warnings are said."""
    if text.startswith(_STAYS) or not progress.is_quiet():
        fail(text)


def fail(text: str) -> None:
    """One line on standard error, whatever --quiet says. A hint is not wrapped: its command is copied."""
    line = printable(text)
    click.echo(marked(line if line.startswith("hint:") else wrapped(line, err=True), err=True), err=True)


def say_passed_over(passed_over: Iterable[PassedOver]) -> None:
    """A line for each reason why something of a folder is not read."""
    for one in passed_over:
        say(f"passed over: {one}")


def confirm(what: str, yes: bool, hint: str = "pass --yes", verb: str = "remove", done: str = "removed") -> None:
    """Ask before something is removed, unless `yes`. Raises UsageError if the answer is no, or if nobody can answer.

    verb, done: what else is done than to remove.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"nobody can be asked whether to {verb} {what}", hint)
    if not click.confirm(f"{verb} {what}?", err=True):
        raise UsageError(f"nothing was {done}")
