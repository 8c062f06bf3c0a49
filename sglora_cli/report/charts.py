"""The content of figures as numbers and names, before drawing. No torch and no plotting library.

Every chart also returns its numbers as a table, for readers who cannot see the figure or want to compute with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sglora_cli.bench.rows import averages, table
from sglora_cli.bench.sentences import UNRELATED
from sglora_cli.bench.tables import GAIN_K, REFERENCES, Table, measure_name, only
from sglora_cli.plugin.values import CHANCE, ZERO, Report, Row


@dataclass(frozen=True)
class Bars:
    """One bar per method. `low` and `high` are None where there is no interval."""

    axis: str
    names: Sequence[str]
    values: Sequence[float]
    low: Sequence[float | None]
    high: Sequence[float | None]
    line: tuple[str, float] | None
    """The method that the intervals compare with, and its value."""
    aside: Sequence[bool]
    """Reference methods that do not compete: the Oracle and chance."""

    def table(self) -> Table:
        body = [["method", self.axis, "low", "high"]]
        for name, value, low, high in zip(self.names, self.values, self.low, self.high, strict=True):
            body.append([name, f"{value:.2f}", *("" if end is None else f"{end:.2f}" for end in (low, high))])
        return body


@dataclass(frozen=True)
class Lines:
    """One line per method over common x values, and constant levels of methods that do not depend on x."""

    x_axis: str
    y_axis: str
    x: Sequence[int]
    lines: Mapping[str, Sequence[float]]
    levels: Mapping[str, float]
    mark: int
    """The x value that the pack uses."""

    def table(self) -> Table:
        body = [[self.x_axis, *self.lines, *self.levels]]
        for i, x in enumerate(self.x):
            values = [*(line[i] for line in self.lines.values()), *self.levels.values()]
            body.append([str(x), *(f"{value:.2f}" for value in values)])
        return body


@dataclass(frozen=True)
class Scatter:
    """Named points in groups. `correlation` is Spearman's, or None if it is undefined."""

    x_axis: str
    y_axis: str
    groups: Mapping[str, Sequence[tuple[str, float, float]]]
    """Group to (name, x, y)."""
    correlation: float | None = None
    zero: bool = False
    """Whether y = 0 means "no difference" and gets a line."""

    def table(self) -> Table:
        points = [(group, *point) for group, points in self.groups.items() for point in points]
        body = [["group", "name", self.x_axis, self.y_axis]]
        return body + [[group, name, f"{x:.3f}", f"{y:.2f}"] for group, name, x, y in points]


@dataclass(frozen=True)
class Stacks:
    """One bar for each name, with parts that sum to 1. A part is (name, group, share)."""

    axis: str
    names: Sequence[str]
    parts: Sequence[Sequence[tuple[str, str, float]]]

    def table(self) -> Table:
        most = max((len(parts) for parts in self.parts), default=0)
        body = [["task", *(f"expert {n + 1}" for n in range(most))]]
        for name, parts in zip(self.names, self.parts, strict=True):
            cells = [f"{group}/{part} {share:.3f}" for part, group, share in parts]
            body.append([name, *cells, *[""] * (most - len(cells))])
        return body


@dataclass(frozen=True)
class Map:
    """Points without axes: (name, kind, group, x, y). Kinds differ by shape, groups by colour."""

    points: Sequence[tuple[str, str, str, float, float]]

    def table(self) -> Table:
        body = [["kind", "group", "name", "x", "y"]]
        return body + [[kind, group, name, f"{x:.2f}", f"{y:.2f}"] for name, kind, group, x, y in self.points]


@dataclass(frozen=True)
class Heat:
    """A coloured cell for each row and column, blank where nothing was measured.

    0 is the middle of the colour scale.
    """

    axis: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    own: Mapping[int, int]
    """The column that belongs to each row."""

    def table(self) -> Table:
        body = [["task", *self.columns]]
        for name, values in zip(self.rows, self.values, strict=True):
            body.append([name, *("" if value is None else f"{value:+.1f}" for value in values)])
        return body


Chart = Bars | Lines | Scatter | Stacks | Map | Heat


@dataclass(frozen=True)
class Figure:
    """A chart with its texts. `name` is its file name without extension."""

    name: str
    title: str
    chart: Chart
    caption: str
    alt: str
    """Alternative text for readers who cannot see the figure. The numbers are in the table."""


def bars(report: Report, direction: str) -> Figure:
    """Return recall@1 (or accuracy) of every method, best first, with intervals of the paired difference to one method.

    An interval is drawn around the end of a bar, as the value of `against` plus the interval of the difference. If the
    interval of a bar does not reach the line, the method differs from `against`.
    """
    cell = (direction, GAIN_K)
    value = {method: cells[cell] for method, cells in averages(only(report, *cell)).items()}
    order = sorted((m for m in report.labels if m in value), key=lambda m: (m == CHANCE, -value[m]))
    base = value.get(report.against)
    low: list[float | None] = []
    high: list[float | None] = []
    for method in order:
        gap = report.differences.get((method, *cell)) if base is not None and method != report.against else None
        low.append(None if gap is None or base is None else base + gap[1])
        high.append(None if gap is None or base is None else base + gap[2])
    label = report.labels.get(report.against, report.against)
    axis = measure_name(direction)
    chart = Bars(
        axis,
        [report.labels[m] for m in order],
        [value[m] for m in order],
        low,
        high,
        None if base is None else (label, base),
        [m in REFERENCES for m in order],
    )
    highest = next((report.labels[m] for m in order if m not in REFERENCES), "none")
    alt = f"Bar chart of {axis}; {highest} has the highest mean."
    caption = _bars_caption(report, direction, label if base is not None else "")
    return Figure(f"bars-{direction.lower()}", axis, chart, caption, alt)


def _bars_caption(report: Report, direction: str, against: str) -> str:
    caption = f"{measure_name(direction)}, mean over {report.tasks(direction=direction)}."
    if against:
        drawn = "builds" if report.builds else "seeds"
        caption += (
            f" Whiskers show the 95 % confidence interval of the difference to {against}, drawn around its value "
            f"(paired bootstrap over tasks, {drawn}, draws and, where the rows have hits, queries). "
            "If a whisker does not reach the dashed line, the difference is significant."
        )
    return caption


def gains(report: Report, method: str) -> dict[tuple[str, str], float]:
    """Return (dataset, task) -> gain of `method` over zero-shot at k = 1 in points, averaged over directions."""
    values = table(report.rows)
    result = {}
    for task, cells in values.get(method, {}).items():
        zero = values.get(ZERO, {}).get(task, {})
        gaps = [cells[cell] - zero[cell] for cell in cells if cell[1] == GAIN_K and cell in zero]
        if gaps:
            result[task] = sum(gaps) / len(gaps)
    return result


def featured(report: Report, preferred: str) -> str:
    """Return the method for figures of a single method: the pack's generator if it was measured, else `against`."""
    return preferred if any(row.method == preferred for row in report.rows) else report.against


def sentence_map(report: Report, preferred: str) -> Figure | None:
    """Show the effect of sentences of other tasks on each task, for one method. Returns None if none was measured.

    A cell is recall@1 with the column's sentence minus recall@1 with the task's own, in points, averaged over
    directions.
    It is blue where the right sentence is better.
    """
    asked = list(dict.fromkeys(row.method for row in report.controls if row.method not in REFERENCES))
    if not asked:
        return None
    method = preferred if preferred in asked else asked[0]
    own = table([row for row in report.rows if row.method == method and row.k == GAIN_K])[method]
    gaps: dict[tuple[str, str], float] = {}
    for (task, sentence), found in _by_sentence(report.controls, method).items():
        gaps["/".join(task), sentence] = sum(
            sum(found[cell]) / len(found[cell]) - own[task][cell] for cell in found
        ) / len(found)
    rows = ["/".join(task) for task in own]
    others = {sentence for _, sentence in gaps} - {UNRELATED}
    columns = [*rows, *sorted(others - set(rows)), *[UNRELATED] * any(s == UNRELATED for _, s in gaps)]
    values = [[0.0 if one == task else gaps.get((task, one)) for one in columns] for task in rows]
    chart = Heat("R@1 with another sentence - with the own", rows, columns, values, {n: n for n in range(len(rows))})
    better = sum(gap < 0 for gap in gaps.values())
    label = report.labels.get(method, method)
    caption = (
        f"{label}: each row is a task, and each column is the task whose sentence made the adapter. The last column is "
        "a sentence unrelated to any photo. Values are in points, averaged over directions. The task's own sentence is "
        f"framed, and blank cells were not measured. The right sentence was better in {better} of {len(gaps)} pairs."
    )
    alt = f"Heat map of tasks and sentences; the own sentence is better in {better} of {len(gaps)} pairs."
    return Figure("sentences", f"Sentence gain: {label}", chart, caption, alt)


def _by_sentence(
    controls: Sequence[Row], method: str
) -> dict[tuple[tuple[str, str], str], dict[tuple[str, int], list[float]]]:
    """Return ((dataset, task), sentence) -> cell -> a method's values at k = 1."""
    found: dict[tuple[tuple[str, str], str], dict[tuple[str, int], list[float]]] = {}
    for row in controls:
        if row.method == method and row.k == GAIN_K:
            cells = found.setdefault(((row.dataset, row.task), row.sentence), {})
            cells.setdefault((row.direction, row.k), []).append(row.value)
    return found
