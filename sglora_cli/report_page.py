"""The page of `sglora report`: tables, figures with their numbers, retrieval examples, and what is missing."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli import plotting
from sglora_cli.charts import CEILING, FLOOR, Figure, Table, directions, measure, only
from sglora_cli.contracts import Report
from sglora_cli.page_parts import Pictures, definitions, page
from sglora_cli.page_parts import text as _t
from sglora_cli.reporting import Measured
from sglora_cli.rows import averages
from sglora_cli.statistics import Interval, is_clear
from sglora_cli.strips import Strip

_PIXELS = 150

_STYLE = """
@media (prefers-color-scheme: dark) { :root { color-scheme: light; --back: #fff; --card: #f4f5f7; --line: #d9dce1;
  --text: #1b1f24; --soft: #59626d; --up: #0b57b8; --down: #a34a00; } }
body { max-width: 76rem; }
.wide { overflow-x: auto; margin-bottom: 1rem; } .wide table { width: auto; }
.wide td, .wide th { padding: .25rem .5rem; white-space: nowrap; }
.wide td + td, .wide th + th { text-align: right; font-variant-numeric: tabular-nums; }
.wide td:first-child, .wide th:first-child { padding-left: 0; position: sticky; left: 0; background: var(--back);
  white-space: normal; min-width: 6.5rem; }
.aside td { color: var(--soft); } u { text-underline-offset: .15em; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(27rem, 100%), 1fr)); gap: 1.4rem;
  align-items: start; }
figure { margin: 0; min-width: 0; border: 1px solid var(--line); border-radius: .6rem; padding: .9rem; }
figure h3 { color: var(--text); } figure > img { width: 100%; display: block; }
figcaption, .why { color: var(--soft); font-size: .85rem; margin: .7rem 0 .3rem; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--up); font-size: .85rem; padding: .3rem 0; }
details .wide { max-height: 24rem; overflow: auto; font-size: .85rem; }
.strip { margin: 0 0 1.6rem; } .strip h3 { margin: 0; } .strip p { margin: .2rem 0 .5rem; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2rem; }
.sides h4 { margin: 0 0 .3rem; font-size: .85rem; color: var(--soft); font-weight: 600; }
.sides ol { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: .3rem; margin: 0; padding: 0;
  list-style: none; }
.sides li { border: 3px solid transparent; border-radius: .4rem; text-align: center; font-size: .75rem;
  color: var(--soft); }
.sides .right { border-color: var(--up); color: var(--up); font-weight: 600; }
.sides img { width: 100%; aspect-ratio: 1; object-fit: cover; display: block; border-radius: .2rem; }
@media (max-width: 40rem) { .sides { grid-template-columns: 1fr; gap: .6rem; } figure { padding: .6rem; } }
@media print { body { max-width: none; padding: 0; } figure, .strip, tr { break-inside: avoid; }
  .wide { overflow: visible; } summary { display: none; } }
"""

_INTERVAL = (
    "With the 95 % interval of a paired bootstrap over tasks and, where rows tell, queries, seeds and draws; "
    "<b>bold</b> where it is clear of zero."
)
_FOOTER = "{} in percent inside each task, averaged over tasks. Made by <code>sglora report</code>."


@dataclass(frozen=True)
class Content:
    """Everything the page shows. `missing`: a figure's title to why it is not there."""

    measured: Measured
    figures: Sequence[Figure]
    strips: Sequence[Strip] = ()
    method: str = ""
    """The label of the method that the strips are of."""
    missing: Mapping[str, str] | None = None


def report_page(content: Content) -> str:
    """The whole page. Raises Unavailable without matplotlib, BadFile if a photo has gone."""
    report = content.measured.report
    parts = [_header(content.measured), _results(report)]
    if content.figures:
        parts.append(f'<h2>Figures</h2>\n<div class="figures">\n{"".join(map(_figure, content.figures))}</div>')
    if content.strips:
        parts.append(_strips(content))
    if content.missing:
        parts.append(f"<h2>Not drawn</h2>\n{definitions(content.missing.items())}")
    measured = directions(report)
    what = ["R@k: recall"] * any(d != "ACC" for d in measured) + ["Accuracy"] * ("ACC" in measured)
    footer = _FOOTER.format(", ".join(what))
    return page(f"Results of pack {report.pack}", _STYLE, "\n".join(parts), footer)


def _header(measured: Measured) -> str:
    report, header = measured.report, measured.header
    tasks = {(row.dataset, row.task) for row in report.rows}
    sizes = [f"{sum(d == name for d, _ in tasks)} {name}" for name in sorted({d for d, _ in tasks})]
    seeds = sorted({row.seed for row in report.rows})
    facts: list[tuple[str, object]] = [
        ("Pack", report.pack),
        ("Backbone", header.backbone),
        ("Unseen tasks", f"{len(tasks)} ({', '.join(sizes)})"),
        ("Methods", len({row.method for row in report.rows})),
        ("Seeds", ", ".join(map(str, seeds))),
        ("Rows", f"{len(report.rows)}, from {', '.join(path.name for path in measured.files)}"),
    ]
    if command := header.more.get("command"):
        facts.append(("Measured by", command))
    said = [text.removesuffix(".") for text in (*measured.said, *measured.left_out)]
    return definitions(facts) + "".join(f'\n<p class="why">{_t(text)}.</p>' for text in said)


def _results(report: Report) -> str:
    parts, aside = ["<h2>Results</h2>"], _aside(report)
    datasets = list(dict.fromkeys(row.dataset for row in report.rows))
    for dataset in ["", *datasets] if len(datasets) > 1 else [""]:
        count = len({(row.dataset, row.task) for row in report.rows if dataset in ("", row.dataset)})
        parts.append(f"<h3>{_t(dataset or 'All')}: {count} unseen task{'s' * (count != 1)}</h3>")
        body = results(report, dataset)
        parts.append(_html(body, aside, best_marks(body, aside)))
    parts.append('<p class="why"><b>Best</b> and <u>second</u> of each column; the Oracle was trained on the task.</p>')
    against = report.labels.get(report.against, report.against)
    if against and report.differences:
        parts.append(f"<h3>Difference to {_t(against)}, in points</h3>")
        body = comparison(report)
        parts.append(_html(body, aside, clear_marks(report, body)))
        parts.append(f'<p class="why">{_INTERVAL}</p>')
    return "\n".join(parts)


def _cells(report: Report, dataset: str = "") -> list[tuple[str, int]]:
    """Every direction and k that was measured on a data set, or on any."""
    found = {(row.direction, row.k) for row in report.rows if dataset in ("", row.dataset)}
    return [(d, k) for d in directions(report) for k in sorted(k for direction, k in found if direction == d)]


def results(report: Report, dataset: str = "") -> Table:
    """Means over the tasks of a data set, or of all: a row a method, a column a direction and k; header first."""
    cells = _cells(report, dataset)
    means = {cell: averages(only(report, *cell), dataset) for cell in cells}
    body = [["method", *(measure(*cell).removesuffix(" (%)") for cell in cells)]]
    for method, label in report.labels.items():
        values = [means[cell].get(method, {}).get(cell) for cell in cells]
        if any(value is not None for value in values):
            body.append([label, *("" if value is None else f"{value:.2f}" for value in values)])
    return body


def comparison(report: Report) -> Table:
    """Mean differences to `against` with their intervals; header first."""
    cells = [cell for cell in _cells(report) if any(key[1:] == cell for key in report.differences)]
    body = [["method", *(measure(*cell).removesuffix(" (%)") for cell in cells)]]
    for method, label in report.labels.items():
        gaps = [report.differences.get((method, *cell)) for cell in cells]
        if method != report.against and any(gaps):
            body.append([label, *(_gap(gap) if gap else "" for gap in gaps)])
    return body


def _aside(report: Report) -> set[str]:
    """Labels of what does not compete."""
    return {report.labels[name] for name in (CEILING, FLOOR) if name in report.labels}


Marks = Mapping[tuple[int, int], str]
"""(row, column) of a table to the tag that marks the cell."""


def best_marks(body: Table, aside: Collection[str]) -> dict[tuple[int, int], str]:
    """The best number of each column bold, the second underlined, as they are printed; `aside` does not compete."""
    marks: dict[tuple[int, int], str] = {}
    for column in range(1, len(body[0])):
        cells = {n: row[column] for n, row in enumerate(body) if n and row[column] and row[0] not in aside}
        for tag, value in zip("bu", sorted(set(cells.values()), key=float, reverse=True), strict=False):
            marks |= {(n, column): tag for n, cell in cells.items() if cell == value}
    return marks


def clear_marks(report: Report, body: Table) -> dict[tuple[int, int], str]:
    """The differences whose interval is clear of zero, bold, in a table of `comparison`."""
    clear = {_gap(gap) for gap in report.differences.values() if is_clear(gap)}
    return {(n, i): "b" for n, row in enumerate(body) for i, cell in enumerate(row) if cell in clear}


def _gap(gap: Interval) -> str:
    return f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]"


def _html(body: Table, aside: Collection[str] = (), marks: Marks | None = None) -> str:
    """A table whose first row is its header."""
    lines = []
    for n, row in enumerate(body):
        tags = [(marks or {}).get((n, i), "") for i in range(len(row))]
        cells = [f"<{tag}>{_t(cell)}</{tag}>" if tag else _t(cell) for tag, cell in zip(tags, row, strict=True)]
        kind, name = (' class="aside"' if n and row[0] in aside else ""), "td" if n else "th"
        lines.append(f"<tr{kind}>" + "".join(f"<{name}>{cell}</{name}>" for cell in cells) + "</tr>")
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _figure(figure: Figure) -> str:
    source = "data:image/svg+xml;base64," + base64.b64encode(plotting.svg(figure.chart)).decode()
    return (
        f'<figure><h3>{_t(figure.title)}</h3>\n<img src="{source}" alt="{_t(figure.alt)}">\n'
        f"<figcaption>{_t(figure.caption)}</figcaption>\n"
        f"<details><summary>The numbers</summary>{_html(figure.chart.table())}</details></figure>\n"
    )


def _strips(content: Content) -> str:
    files = {str(path): path for strip in content.strips for path in (*strip.before, *strip.after)}
    pictures = Pictures(files, _PIXELS)
    why = (
        f"Text to image, zero-shot and {content.method}, one draw. Shown are, for each data set, the caption whose "
        "photo rises most and the one whose photo falls most (in 1 / rank) of all captions of its unseen tasks: "
        "extremes, no typical cases. The framed photo is the caption's own."
    )
    parts = "\n".join(_strip(strip, pictures) for strip in content.strips)
    return f'<h2>Retrieval examples</h2>\n<p class="why">{_t(why)}</p>\n{parts}'


def _strip(strip: Strip, pictures: Pictures) -> str:
    sides = "".join(
        f"<div><h4>{name}: rank {rank}</h4>{_photos(paths, strip.right, pictures)}</div>"
        for name, rank, paths in (
            ("Zero-shot", strip.rank_before, strip.before),
            ("With the adapter", strip.rank_after, strip.after),
        )
    )
    way = "▲ rises" if strip.change > 0 else "▼ falls"
    return (
        f'<section class="strip"><h3>{_t(strip.dataset)}, {_t(strip.task)}: {way}</h3>'
        f'<p class="sentence">“{_t(strip.caption)}”</p><div class="sides">{sides}</div></section>'
    )


def _photos(paths: Sequence[Path], right: Path, pictures: Pictures) -> str:
    items = []
    for place, path in enumerate(paths, 1):
        own = path == right
        alt = f"place {place}, the right photo" if own else f"place {place}, another photo"
        mark = ' class="right"' if own else ""
        items.append(f'<li{mark}><img src="{pictures[str(path)]}" alt="{alt}">{place}{" ✓" if own else ""}</li>')
    return f"<ol>{''.join(items)}</ol>"
