"""Tables as text: plain, for a terminal, Markdown, LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from shutil import get_terminal_size

from sglora_cli.api import BEST, SECOND, Report, ResultTable, result_legend, result_tables

from .paper import published, remarks

_WIDE = _TALL = 1000  # both are said, or rich takes 80 columns on a dumb terminal


def sections(report: Report) -> list[ResultTable]:
    """All tables of a report, with the paper's numbers where they may stand there."""
    return result_tables(
        report, {dataset: published(report, dataset) for dataset in {row.dataset for row in report.rows}}
    )


def plain(report: Report) -> str:
    """Columns of text."""
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
    """The same as tables for a terminal: the best of a column bold, the second underlined.

    In a terminal too narrow for a table its lines run on: a number that is cut is another number.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    console, styles = Console(width=get_terminal_size().columns, height=_TALL), {BEST: "bold", SECOND: "underline"}
    with console.capture() as capture:
        console.print("\n".join([*report.notes, *remarks(report)]), highlight=False, markup=False)
        for section in sections(report):
            table = Table(title=section.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
            for column, name in enumerate(section.header):
                table.add_column(name, justify="right" if column else "left", overflow="fold", header_style="bold cyan")
            for line in section.references_first:
                style = "dim" if line.is_reference else ""
                cells = zip(line.cells, line.marks, strict=True)
                table.add_row(*(Text.assemble((cell, styles.get(mark, ""))) for cell, mark in cells), style=style)
            console.print()
            own, options = console.width, console.options.update(width=_WIDE)
            words = Measurement.get(console, options, table).minimum + 2 * len(section.header)  # and what parts them
            console.width = max(own, words)
            console.print(table, crop=False)
            console.width = own
            for finding in section.findings:
                console.print(finding, highlight=False, markup=False)
        console.print()
        console.print(result_legend(report), style="dim", highlight=False, markup=False)
    return capture.get()


def marked(section: ResultTable, best: str, second: str, escape: Callable[[str], str]) -> list[list[str]]:
    """Cells of all lines, escaped, the best and second as the formats say."""
    forms = {BEST: best, SECOND: second}
    return [
        [forms.get(mark, "{}").format(escape(cell)) for cell, mark in zip(line.cells, line.marks, strict=True)]
        for line in section.references_first
    ]


def markdown(report: Report) -> str:
    """The same as Markdown tables, the best bold, the second underlined."""
    lines = _separated(list(map(_markdown_cell, [*report.notes, *remarks(report)])))
    for section in sections(report):
        header = "| " + " | ".join(map(_markdown_cell, section.header)) + " |"
        lines += ["", f"**{_markdown_cell(section.title)}**", "", header, "|---" * len(section.header) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in marked(section, "**{}**", "<u>{}</u>", _markdown_cell)]
        lines += ["", *_separated(list(map(_markdown_cell, section.findings)))] if section.findings else []
    return "\n".join([*lines, "", _markdown_cell(result_legend(report))]) + "\n"


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _separated(lines: Sequence[str]) -> list[str]:
    """Lines that stay lines in Markdown."""
    return [f"{line}  " for line in lines[:-1]] + list(lines[-1:])


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def _latex_cell(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def latex(report: Report) -> str:
    """A table environment each, for the package booktabs; the references above a rule."""
    lines = [f"% {line}" for line in [*report.notes, *remarks(report), result_legend(report)]]
    for section in sections(report):
        rows = [" & ".join(row) + r" \\" for row in marked(section, r"\textbf{{{}}}", r"\underline{{{}}}", _latex_cell)]
        apart = len(section.references)
        rule = [r"\midrule"] if apart else []
        lines += [
            "",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex_cell(section.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(section.header) - 1)}}}",
            r"\toprule",
            " & ".join(map(_latex_cell, section.header)) + r" \\",
            r"\midrule",
            *rows[:apart],
            *rule,
            *rows[apart:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            *(f"% {finding}" for finding in section.findings),
        ]
    return "\n".join(lines) + "\n"
