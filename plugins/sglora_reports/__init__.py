"""Reporters that print a benchmark for people and for programs.

text.py    tables as text for people, from the host's result tables
paper.py   the paper's numbers for comparison
this file  formats for programs
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

from sglora_cli.api import Report, Row, averages, build_ranges, cell_name, csv_cell, hookimpl, spreads

from .text import latex, markdown, plain, terminal

SGLORA_API = "1.0"


@dataclass(frozen=True)
class Text:
    """A reporter that consists of one function."""

    name: str
    summary: str
    function: Callable[[Report], str]

    def render(self, report: Report) -> str:
        return self.function(report)


def as_json(report: Report) -> str:
    """Render averages, differences, spreads of draws (or ranges of builds), and all rows as JSON."""
    content = {
        "pack": report.pack,
        "methods": dict(report.labels),
        "against": report.against,
        "notes": list(report.notes),
        "averages": {m: {cell_name(cell): v for cell, v in c.items()} for m, c in averages(report.rows).items()},
        "differences": {
            f"{method} {cell_name((direction, k))}": _interval(gap)
            for (method, direction, k), gap in report.differences.items()
        },
        "sentence_gains": [
            {"sentences": kind, "method": method, "measure": cell_name((direction, k)), **_interval(gain)}
            for (kind, method, direction, k), gain in report.sentence_gains.items()
        ],
        **(_ranges(report) if report.builds else _draws(report)),
        "rows": list(map(_without_hits, report.rows)),
        "controls": list(map(_without_hits, report.controls)),
    }
    return json.dumps(content, indent=1) + "\n"


def _interval(gap: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), gap, strict=True))


def _without_hits(row: Row) -> dict[str, object]:
    return {key: value for key, value in asdict(row).items() if key != "hits"}


def _draws(report: Report) -> dict[str, object]:
    draws = {
        f"{method} {cell_name(cell)}": asdict(spread)
        for method, cells in spreads(report.rows).items()
        for cell, spread in cells.items()
    }
    return {"draws": draws}


def _ranges(report: Report) -> dict[str, object]:
    ranges = {
        f"{method} {cell_name(cell)}": {"lowest": lowest, "highest": highest}
        for method, cells in build_ranges(report.rows).items()
        for cell, (lowest, highest) in cells.items()
    }
    return {"builds": list(report.builds), "ranges": ranges}


def as_csv(report: Report) -> str:
    """Render all rows. An apostrophe is prepended to names that a spreadsheet would interpret as a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [spec.name for spec in fields(Row) if spec.name != "hits"]
    writer.writerow(names)
    writer.writerows([csv_cell(getattr(row, name)) for name in names] for row in (*report.rows, *report.controls))
    return out.getvalue()


@hookimpl
def sglora_reporters() -> list[Text]:
    return [
        Text("table", "plain text in columns", plain),
        Text("terminal", "coloured tables for a terminal", terminal),
        Text("markdown", "tables in Markdown", markdown),
        Text("latex", "tables in LaTeX, with booktabs", latex),
        Text("json", "averages, intervals and all rows", as_json),
        Text("csv", "all rows", as_csv),
    ]
