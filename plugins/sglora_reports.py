"""Ways to print a benchmark: for people, and for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

from sglora_cli.api import Report, Row, averages, hookimpl, recovery

CELLS = [(direction, k) for direction in ("I2T", "T2I") for k in (1, 5, 10)]


@dataclass(frozen=True)
class Text:
    """A reporter made of one function."""

    name: str
    summary: str
    function: Callable[[Report], str]

    def render(self, report: Report) -> str:
        return self.function(report)


def sections(report: Report) -> list[tuple[str, list[list[str]]]]:
    """(title, rows of cells with the header first): all tasks together, then each data set."""
    datasets = list(dict.fromkeys(row.dataset for row in report.rows))
    result = []
    for dataset in ["", *datasets] if len(datasets) > 1 else [""]:
        average = averages(report.rows, dataset)
        count = len({(row.dataset, row.task) for row in report.rows if dataset in ("", row.dataset)})
        title = f"{dataset or 'all'}: {count} unseen task{'s' if count != 1 else ''}"
        header = ["method", *(f"{d} R@{k}" for d, k in CELLS)]
        if not dataset:
            header += [f"{d} R@1 - {report.against}" for d in ("I2T", "T2I")] + ["recovery"]
        body = [header]
        for method, label in report.labels.items():
            if method in average:
                cells = [label, *(f"{average[method][cell]:.1f}" for cell in CELLS)]
                body.append(cells if dataset else cells + _comparison(report, method))
        result.append((title, body))
    return result


def _comparison(report: Report, method: str) -> list[str]:
    cells = []
    for direction in ("I2T", "T2I"):
        if method != report.against and (gap := report.differences.get((method, direction, 1))):
            cells.append(f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]")
        else:
            cells.append("")
    found = [recovery(averages(report.rows), method, (d, 1)) for d in ("I2T", "T2I")]
    cells.append("" if None in found else " / ".join(f"{value:.2f}" for value in found if value is not None))
    return cells


LEGEND = (
    "R@k: recall in percent. '- {against}': mean difference with its 95 % interval, paired bootstrap over tasks. "
    "recovery: (method - zero-shot) / (Oracle - zero-shot) at R@1, I2T / T2I."
)


def plain(report: Report) -> str:
    """Columns of text."""
    lines = list(report.notes)
    for title, body in sections(report):
        widths = [max(len(row[i]) for row in body) for i in range(len(body[0]))]
        lines += ["", title]
        for row in body:
            cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
            lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, "", LEGEND.format(against=report.against)]) + "\n"


def terminal(report: Report) -> str:
    """The same as tables for a terminal, the largest recalls in bold; the Oracle, which saw the task's data, aside."""
    from rich.console import Console
    from rich.table import Table

    console, oracle = Console(), report.labels.get("oracle")
    with console.capture() as capture:
        console.print("\n".join(report.notes), highlight=False, markup=False)
        for title, body in sections(report):
            table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
            for column, name in enumerate(body[0]):
                table.add_column(name, justify="right" if column else "left", header_style="bold cyan")
            rows = [row for row in body[1:] if row[0] != oracle]
            best = {i: max((row[i] for row in rows), key=float, default="") for i in range(1, 1 + len(CELLS))}
            for row in body[1:]:
                bold = [i for i, cell in enumerate(row) if row[0] != oracle and cell == best.get(i)]
                table.add_row(*(f"[bold]{cell}[/]" if i in bold else cell for i, cell in enumerate(row)))
            console.print()
            console.print(table)
        console.print()
        console.print(LEGEND.format(against=report.against), style="dim", highlight=False, markup=False)
    return capture.get()


def markdown(report: Report) -> str:
    """The same as Markdown tables."""
    lines = list(report.notes)
    for title, body in sections(report):
        lines += ["", f"**{title}**", "", "| " + " | ".join(body[0]) + " |", "|---" * len(body[0]) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in body[1:]]
    return "\n".join([*lines, "", LEGEND.format(against=report.against)]) + "\n"


def as_json(report: Report) -> str:
    """Averages, differences and every row."""
    content = {
        "pack": report.pack,
        "methods": dict(report.labels),
        "against": report.against,
        "averages": {m: {f"{d} R@{k}": v for (d, k), v in c.items()} for m, c in averages(report.rows).items()},
        "differences": {
            f"{m} {d} R@{k}": {"mean": gap[0], "low": gap[1], "high": gap[2]}
            for (m, d, k), gap in report.differences.items()
        },
        "rows": [{k: v for k, v in asdict(row).items() if k != "hits"} for row in report.rows],
    }
    return json.dumps(content, indent=1) + "\n"


def as_csv(report: Report) -> str:
    """Every row."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [spec.name for spec in fields(Row) if spec.name != "hits"]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in report.rows)
    return out.getvalue()


@hookimpl
def sglora_reporters() -> list[Text]:
    return [
        Text("table", "columns of text", plain),
        Text("terminal", "tables in colour, for a person", terminal),
        Text("markdown", "tables for a README", markdown),
        Text("json", "averages, intervals and every row", as_json),
        Text("csv", "every row", as_csv),
    ]
