"""Output of commands: tables for people, JSON for programs, and status lines.

Lists are tables with a header in a terminal and plain aligned lines elsewhere. All colours are defined here.
"""

from __future__ import annotations

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
from sglora_cli.files.escape import printable
from sglora_cli.files.text import json_text
from sglora_cli.system import progress

if TYPE_CHECKING:
    from sglora_cli.files.passed_over import PassedOver


def shortened(text: str, width: int = 110) -> str:
    """Truncate the text to `width` characters.

    >>> shortened("a caption of many words", width=12)
    'a caption...'
    """
    return text if len(text) <= width else text[: width - 3] + "..."


_READABLE = 24
"""Minimum width of a text column beside other columns. If less room is left, texts are printed below their row."""
_INDENT, _GAP = "    ", "  "


def print_rows(header: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str] = ()) -> None:
    """Print rows of cells on standard output, with a header only in a terminal.

    words: text columns, which wrap between words in a terminal. Other cells stay on one line so that they can be
    copied. If too little room is left for the texts, they are printed below their row.
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
    """Return the column widths for a terminal `room` characters wide, or [] if a text column would be too narrow."""
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
        table.add_row(*map(Text, row))  # rich parses a bare str as markup, but [/x] is a file name here
    # with only one of them given, rich assumes 80 columns on a dumb terminal
    console = Console(width=sum(widths) + len(_GAP) * len(widths), height=len(rows) + 1)
    with console.capture() as capture:
        console.print(table, crop=False)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def _print_stacked(header: Sequence[str], rows: Sequence[Sequence[str]], wraps: Sequence[bool]) -> None:
    """Print the texts of each row below its other cells."""
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


def echo(text: object = "") -> None:
    """Print a result on standard output, with control characters escaped but for line breaks."""
    click.echo("\n".join(map(printable, str(text).split("\n"))))


def print_json(content: Mapping[str, Any], lines: bool = False) -> None:
    """Print one JSON object on standard output, on a single line if `lines`. NaN and infinite numbers become null."""
    click.echo(json_text(content, indent=None if lines else 1))


def paragraph(text: str, start: str = "", err: bool = False, hang: int = 0) -> str:
    """Return the text after `start`, wrapped and indented to fit the width of a terminal, or on one line elsewhere.

    hang: additional indent of all lines but the first. Words, such as paths, are not broken, and neither are commands
    of this program in parentheses, so that both can be copied.
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
"""A non-breaking space."""

_COLOURS = {
    **dict.fromkeys(("error:", "broken", "damaged", "failed"), "red"),
    **dict.fromkeys(("warning:", "missing"), "yellow"),
    **dict.fromkeys(("healthy", "ok"), "green"),
}
"""Colours for the first word of a line. The words carry the same meaning without colour."""
_STAYS = ("error:", "warning:", "hint:")


def styled(text: str, err: bool = False, **style: Any) -> str:
    """Apply a click style if the stream is a terminal that supports styles and NO_COLOR is not set."""
    stream = sys.stderr if err else sys.stdout
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else click.style(text, **style)


_LABEL = re.compile(r"[a-z]+(?: [a-z]+)?  +(?=\S)|[a-z]{10} | +")
"""A label of one or two words with spaces after it, as in `backbone   starter`, or the indent of a line."""


def wrapped(line: str, err: bool = False) -> str:
    """Wrap the line in a terminal, with a hanging indent that aligns with the text after its label.

    >>> wrapped("made by    generator cvae of pack starter")
    'made by    generator cvae of pack starter'
    """
    label = found[0] if (found := _LABEL.match(line)) else ""
    return paragraph(line[len(label) :], label, err, hang=2 * label.isspace())


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on standard output, escaped, wrapped and coloured."""
    for line in lines:
        click.echo(marked(wrapped(printable(line))))


def marked(line: str, err: bool = False) -> str:
    """Return the line with its first word coloured if `_COLOURS` lists it."""
    word, rest = line.split(" ", 1) if " " in line else (line, "")
    if word == "hint:":
        word = styled(word, err, bold=True)
    elif word in _COLOURS:
        word = styled(word, err, bold=True, fg=_COLOURS[word])
    return f"{word} {rest}" if rest else word


def say(text: str) -> None:
    """Print a status line on standard error. With --quiet or --json only errors, warnings and hints are printed."""
    if text.startswith(_STAYS) or not progress.is_quiet():
        fail(text)


def fail(text: str) -> None:
    """Print a line on standard error even with --quiet. Hints are not wrapped, so that commands can be copied."""
    line = printable(text)
    click.echo(marked(line if line.startswith("hint:") else wrapped(line, err=True), err=True), err=True)


def say_passed_over(passed_over: Iterable[PassedOver]) -> None:
    """Print a line for each reason why files in a folder are ignored."""
    for one in passed_over:
        say(f"ignored: {one}")


class Declined(click.exceptions.Abort):
    """The user answered no to a question, or interrupted it."""


def confirm(what: str, yes: bool, hint: str = "pass --yes", verb: str = "remove", done: str = "removed") -> None:
    """Ask for confirmation unless `yes`. Raises Declined without it, UsageError if standard input is no terminal.

    verb, done: the action, in the infinitive and as a participle.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"confirmation to {verb} {what} needs a terminal", hint)
    try:
        confirmed = click.confirm(f"{verb} {what}?", err=True)
    except click.exceptions.Abort:  # Ctrl-C or the end of the input, which leave the cursor behind the question
        click.echo(err=True)
        confirmed = False
    if not confirmed:
        raise Declined(f"nothing was {done}")
