"""The page of `sglora report`: tables, figures with their numbers, retrieval examples, and what is missing."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from pathlib import Path

from sglora_cli.bench.tables import (
    Marks,
    Table,
    best_marks,
    clear_marks,
    comparison,
    directions,
    ranges,
    reference_labels,
    results,
)
from sglora_cli.plugin.values import Report
from sglora_cli.report import plot
from sglora_cli.report.charts import Figure
from sglora_cli.report.content import Content
from sglora_cli.report.examples import Strip
from sglora_cli.report.load import Measured
from sglora_cli.report.page_parts import Pictures, definitions, page
from sglora_cli.report.page_parts import text as _t

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
    "With the 95 % interval of a paired bootstrap over tasks and, where rows tell, queries, {} and draws; "
    "<b>bold</b> where it is clear of zero."
)
_FOOTER = "{} in percent inside each task, averaged over tasks. Made by <code>sglora report</code>."


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
        ("Builds", ", ".join(report.builds)) if report.builds else ("Seeds", ", ".join(map(str, seeds))),
        ("Rows", f"{len(report.rows)}, from {', '.join(path.name for path in measured.files)}"),
    ]
    if command := header.more.get("command"):
        facts.append(("Measured by", command))
    said = [text.removesuffix(".") for text in (*measured.said, *measured.left_out)]
    return definitions(facts) + "".join(f'\n<p class="why">{_t(text)}.</p>' for text in said)


def _results(report: Report) -> str:
    parts, aside = ["<h2>Results</h2>"], reference_labels(report)
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
        parts.append(f'<p class="why">{_INTERVAL.format("builds" if report.builds else "seeds")}</p>')
    if report.builds:
        parts.append(f"<h3>Lowest and highest of {len(report.builds)} builds</h3>\n{_html(ranges(report), aside)}")
    return "\n".join(parts)


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
    source = "data:image/svg+xml;base64," + base64.b64encode(plot.svg(figure.chart)).decode()
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
