"""Render tables as plain text, for a terminal, as Markdown, and as LaTeX."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from sglora_cli.api import (
    BEST,
    SECOND,
    Report,
    ResultTable,
    latex_text,
    markdown_text,
    printable,
    result_legend,
    result_tables,
)

from .paper import published, remarks

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {BEST: "bold", SECOND: "underline"}
_GAP = "  "
_WIDE = _TALL = 1000  # set both, otherwise rich uses 80 columns on a dumb terminal


def sections(report: Report, short: bool = False) -> list[ResultTable]:
    """Return all tables of a report, with the paper's numbers where they apply."""
    numbers = {dataset: published(report, dataset) for dataset in {row.dataset for row in report.rows}}
    return result_tables(report, numbers, short)


def plain(report: Report) -> str:
    """Render plain text in columns."""
    lines = [*report.notes, *remarks(report)]
    for section in sections(report):
        body = [section.header, *(line.cells for line in section.references_first)]
        widths = [max(len(row[i]) for row in body) for i in range(len(section.header))]
        lines += ["", section.title]
        for row in body:
            cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
            lines.append("  ".join(cells).rstrip())
        lines += section.findings
    return "\n".join([*lines, "", result_legend(report)]) + "\n"


def terminal(report: Report) -> str:
    """Render for a terminal, with the best value of a column in bold and the second best underlined.

    Tables wider than the terminal are shortened. Numbers and names are never split.
    """
    from rich.console import Console

    room = get_terminal_size().columns if sys.stdout.isatty() else _WIDE
    wide, short = sections(report), sections(report, short=True)
    fits = [_width(section) <= room for section in wide]
    shown = [one if fit else other for one, other, fit in zip(wide, short, fits, strict=True)]
    console = Console(width=_WIDE, height=_TALL)

    def show(text: str, style: str = "") -> None:
        console.print(_sentence(text, room, style), soft_wrap=True)

    with console.capture() as capture:
        for note in [*report.notes, *remarks(report)]:
            show(note)
        for section in shown:
            console.print()
            show(section.title, "bold")
            for line in _lines(section, _width(section) > room):
                console.print(line, soft_wrap=True)
            for finding in section.findings:
                show(finding)
        console.print()
        compared = [fit for section, fit in zip(wide, fits, strict=True) if section.header[-1] == "recovery"]
        show(result_legend(report, short=not any(compared)), "dim")
        if not all(fits):
            needed = max(map(_width, wide))
            some = "Tables are" if not any(fits) else "Some tables are"
            show(
                f"{some} shortened to R@1 to fit {room} columns. Use `--as table` or {needed} columns for all values.",
                "dim",
            )
    return capture.get()


def _sentence(text: str, room: int, style: str) -> Text:
    """Wrap a text between words and colour the words that state the finding."""
    from rich.text import Text

    text = textwrap.fill(text, room, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    sentence = Text(text, style)
    sentence.highlight_regex(r"\bbetter\b", "bold green")
    sentence.highlight_regex(r"\bworse\b", "bold red")
    return sentence


def _width(section: ResultTable) -> int:
    """Return the columns that a table needs."""
    return sum(_widths(section)) + len(_GAP) * (len(section.header) - 1)


def _widths(section: ResultTable) -> list[int]:
    body = [section.header, *(row for line in section.lines for row in (line.cells, line.beneath) if row)]
    return [max(len(row[i]) for row in body if i < len(row)) for i in range(len(section.header))]


def _lines(section: ResultTable, stacked: bool) -> Iterator[Text]:
    """Yield the lines of a table. With `stacked`, a method has its own line above its numbers."""
    from rich.text import Text

    start, widths = int(stacked), _widths(section)

    def row(cells: Sequence[str], marks: Sequence[str], style: str) -> Text:
        parts: list[str | Text | tuple[str, str]] = [" " * start]
        for i in range(start, len(cells)):
            blanks = " " * (widths[i] - len(cells[i]))
            cell = (cells[i], _STYLES.get(marks[i], "") if marks else "")
            parts += [_GAP * (i > start), *((cell, blanks) if i < section.labels else (blanks, cell))]
        return Text.assemble(*parts, style=style)

    yield row(section.header, (), "bold cyan")
    for line in section.references_first:
        style = "dim" if line.is_reference else ""
        if stacked and line.cells[0]:
            yield Text(line.cells[0], style)
        yield row(line.cells, line.marks, style)
        if any(line.beneath):
            yield row(line.beneath, (), "dim")


def marked(section: ResultTable, best: str, second: str, escape: Callable[[str], str]) -> list[list[str]]:
    """Return the escaped cells of all lines, with the formats applied to the best and the second best."""
    forms = {BEST: best, SECOND: second}
    return [
        [forms.get(mark, "{}").format(escape(cell)) for cell, mark in zip(line.cells, line.marks, strict=True)]
        for line in section.references_first
    ]


def markdown(report: Report) -> str:
    """Render Markdown tables, with the best value in bold and the second best underlined."""
    lines = _separated(list(map(markdown_text, [*report.notes, *remarks(report)])))
    for section in sections(report):
        header = "| " + " | ".join(map(markdown_text, section.header)) + " |"
        lines += ["", f"**{markdown_text(section.title)}**", "", header, "|---" * len(section.header) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in marked(section, "**{}**", "<u>{}</u>", markdown_text)]
        lines += ["", *_separated(list(map(markdown_text, section.findings)))] if section.findings else []
    return "\n".join([*lines, "", markdown_text(result_legend(report))]) + "\n"


def _separated(lines: Sequence[str]) -> list[str]:
    """Add hard line breaks, so that Markdown keeps the lines."""
    return [f"{line}  " for line in lines[:-1]] + list(lines[-1:])


def latex(report: Report) -> str:
    """Render table environments for the package booktabs, with the references above a rule."""
    lines = [f"% {printable(line)}" for line in [*report.notes, *remarks(report), result_legend(report)]]
    for section in sections(report):
        rows = [" & ".join(row) + r" \\" for row in marked(section, r"\textbf{{{}}}", r"\underline{{{}}}", latex_text)]
        apart = len(section.references)
        rule = [r"\midrule"] if apart else []
        lines += [
            "",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(section.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(section.header) - 1)}}}",
            r"\toprule",
            " & ".join(map(latex_text, section.header)) + r" \\",
            r"\midrule",
            *rows[:apart],
            *rule,
            *rows[apart:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            *(f"% {printable(finding)}" for finding in section.findings),
        ]
    return "\n".join(lines) + "\n"
