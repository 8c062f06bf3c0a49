"""The pages of `report` and `data check`. This module collects their values, and templates/ defines the layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sglora_cli.bench import tables
from sglora_cli.bench.rows import Cell
from sglora_cli.bench.tables import Line, ResultTable
from sglora_cli.data.check import DataCheck
from sglora_cli.data.check_rules import CaptionCount, IssueKind
from sglora_cli.data.overlaps import SAID, overlap_lines
from sglora_cli.plugin.values import Photo, Report, Task
from sglora_cli.report import plot
from sglora_cli.report.charts import Chart
from sglora_cli.report.content import Content
from sglora_cli.report.html import Pictures, data_url, page
from sglora_cli.report.load import Measured

_ROWS = 8  # initially visible rows of a table of findings
_MORE_ROWS = 100  # further rows that can be expanded; --json has all of them
_PAIRS = 20  # pairs per kind
_SAMPLES = 4  # pictures per task
_SHEET = 240  # pictures of all tasks

T = TypeVar("T")


@dataclass(frozen=True)
class Excerpt(Generic[T]):
    """Part of a long list: `first` is visible, `more` can be expanded, and `left_out` counts items not on the page."""

    first: Sequence[T]
    more: Sequence[T]
    left_out: int

    @classmethod
    def of(cls, items: Sequence[T], first: int, more: int = 0) -> Excerpt[T]:
        return cls(items[:first], items[first : first + more], max(0, len(items) - first - more))


@dataclass(frozen=True)
class IssueExamples(Generic[T]):
    """One kind of finding with its examples: rows of a table, or pairs of images."""

    kind: IssueKind
    count: int
    excerpt: Excerpt[T]


@dataclass(frozen=True)
class CountsTable:
    """The numbers of images and captions of every task."""

    header: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Sample:
    """Some photos of a task."""

    task: str
    images: int
    """Number of images of the task."""
    photos: Sequence[tuple[str, str]]
    """Image name and caption."""


def check_page(check: DataCheck) -> bytes:
    """Render the page of `sglora data check`, with at most 240 samples and 20 pairs per kind.

    Raises BadFile if an image is missing that the check has read.
    """
    findings, pairs = [], []
    for key, kind, count in check.kinds():
        texts = [(problem.where, problem.text) for problem in check.problems if problem.kind == key]
        alike = [pair for pair in check.pairs if pair.kind == key]
        if texts:
            findings.append(IssueExamples(kind, count, Excerpt.of(texts, _ROWS, _MORE_ROWS)))
        if alike:
            pairs.append(IssueExamples(kind, count, Excerpt.of(alike, _PAIRS)))
    common = [(f"{c.images} images, {c.tasks} task{'s' * (c.tasks != 1)}", c.caption) for c in check.common]
    return page(
        "check.html",
        check=check,
        findings=findings,
        pairs=pairs,
        common=Excerpt.of(common, _ROWS, _MORE_ROWS),
        passed_over=[(f"{one.count} {one.reason}", one.names) for one in check.passed_over],
        overlap_lines=overlap_lines(check.overlaps),
        overlaps=Excerpt.of([(SAID[one.kind], str(one)) for one in check.overlaps], _ROWS, _MORE_ROWS),
        counts=_counts(check),
        samples=Excerpt.of(list(_samples(check)), _SHEET),
        pictures=Pictures({picture.name: picture.path for picture in check.pictures.values()}, pixels=200),
    )


def _counts(check: DataCheck) -> CountsTable:
    splits = list(dict.fromkeys(split for counts in check.counts.values() for split in counts))
    rows = []
    for task, counts in check.counts.items():
        images = [counts[split].images if split in counts else 0 for split in splits]
        together = CaptionCount.of(counts.values())
        mean = f"{together.fewest} / {together.mean:.1f} / {together.most}"
        spread = str(together.most) if together.fewest == together.most else mean
        rows.append((task, [*map(str, images), str(together.captions), spread]))
    return CountsTable(["task", *splits, "captions", "captions per image"], rows)


def _samples(check: DataCheck) -> Iterator[Sample]:
    each = max(1, min(_SAMPLES, _SHEET // len(check.tasks)))
    for task in check.tasks:
        count = sum(len(photos) for photos in task.photos.values())
        photos = [(check.pictures[p.path].name, next(iter(p.captions), "")) for p in _spread(check, task, each)]
        yield Sample(task.name, count, photos)


def _spread(check: DataCheck, task: Task, count: int) -> Iterator[Photo]:
    """Yield at most `count` readable photos, spread evenly over a task's photos."""
    every = [photo for photos in task.photos.values() for photo in photos]
    photos = [photo for photo in every if check.pictures[photo.path].hash is not None]
    for n in range(min(count, len(photos))):
        yield photos[n * len(photos) // min(count, len(photos))]


def report_page(content: Content) -> bytes:
    """Render the page of `sglora report`: tables, figures with their numbers, retrieval examples, and what is missing.

    Raises Unavailable without matplotlib, and BadFile if a photo is missing.
    """
    measured = content.measured
    directed = tables.directions(measured.report)
    photos = {str(path): path for example in content.examples for path in (*example.before, *example.after)}
    return page(
        "report.html",
        content=content,
        facts=_facts(measured),
        remarks=[text.removesuffix(".") for text in (*measured.remarks, *measured.left_out)],
        results=_results(measured.report),
        differences=_differences(measured.report),
        ranges=_ranges(measured.report),
        sentences=tables.sentence_table(measured.report),
        svg=_svg,
        pictures=Pictures(photos, pixels=150),
        measures=["R@k: recall"] * any(d != "ACC" for d in directed) + ["Accuracy"] * ("ACC" in directed),
    )


def _facts(measured: Measured) -> list[tuple[str, object]]:
    report, header = measured.report, measured.header
    tasks = {(row.dataset, row.task) for row in report.rows}
    sizes = [f"{sum(d == name for d, _ in tasks)} {name}" for name in sorted({d for d, _ in tasks})]
    seeds = sorted({row.seed for row in report.rows})
    facts: list[tuple[str, object]] = [
        ("Pack", report.pack),
        ("Backbone", header.backbone),
        (f"{report.role.capitalize()} tasks", f"{len(tasks)} ({', '.join(sizes)})"),
        ("Methods", len({row.method for row in report.rows})),
        ("Builds", ", ".join(report.builds)) if report.builds else ("Seeds", ", ".join(map(str, seeds))),
        ("Rows", f"{len(report.rows)}, from {', '.join(path.name for path in measured.files)}"),
    ]
    command = header.more.get("command")
    return [*facts, ("Measured by", command)] if command else facts


def _results(report: Report) -> list[ResultTable]:
    """Return the results of all tasks, then of each data set."""
    datasets = tables.datasets_of(report)
    parts = {"": "All"} | ({name: name for name in datasets} if len(datasets) > 1 else {})
    results = []
    for dataset, name in parts.items():
        cells = tables.cells_of(report, dataset)
        lines = tables.means(report, cells, dataset)
        results.append(_result_table(f"{name}: {report.tasks(dataset)}", cells, lines))
    return results


def _differences(report: Report) -> ResultTable | None:
    against = report.labels.get(report.against, report.against)
    if not against or not report.differences:
        return None
    cells = [cell for cell in tables.cells_of(report) if any(key[1:] == cell for key in report.differences)]
    return _result_table(f"Difference to {against}, in points", cells, tables.differences(report, cells))


def _ranges(report: Report) -> ResultTable | None:
    if not report.builds:
        return None
    cells = tables.cells_of(report)
    return _result_table(f"Lowest and highest of {len(report.builds)} builds", cells, tables.ranges(report, cells))


def _result_table(title: str, cells: Sequence[Cell], lines: Sequence[Line]) -> ResultTable:
    return ResultTable(title, ["method", *(tables.measure_name(*cell).removesuffix(" (%)") for cell in cells)], lines)


def _svg(chart: Chart) -> str:
    return data_url("image/svg+xml", plot.svg(chart))
