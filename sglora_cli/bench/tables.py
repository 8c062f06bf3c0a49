"""Turns rows into tables: means over tasks, differences with intervals, and the best of each column. No torch.

All reporters and pages use these tables. A cell is (direction, k).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sglora_cli.bench.bootstrap import Interval, is_clear
from sglora_cli.bench.rows import Cell, averages, build_ranges, recovery, spreads
from sglora_cli.bench.rows_file import ROW_DIRECTIONS
from sglora_cli.bench.sentences import ACROSS, SAME, UNRELATED, not_reading
from sglora_cli.plugin.values import CHANCE, ORACLE, Report, Row

GAIN_K = 1  # the paper compares R@1
REFERENCES = (CHANCE, ORACLE)
"""Shown separately, because they do not make an adapter from the unseen task's sentence alone."""
BEST, SECOND, CLEAR = "best", "second", "clear"
"""Marks of the best and second number of a column, and of a difference whose interval excludes zero."""

Table = list[list[str]]
"""Rows of cells, with the header first."""
Published = Mapping[tuple[str, Cell], float]
"""(method, cell) to a published number, in percent."""


@dataclass(frozen=True)
class Line:
    """One method: its label and formatted numbers, and the mark of each ("" for none)."""

    method: str
    cells: Sequence[str]
    marks: Sequence[str]
    beneath: Sequence[str] = ()
    """Text below each cell of a short table: the difference with its interval."""

    @property
    def is_reference(self) -> bool:
        return self.method in REFERENCES


@dataclass(frozen=True)
class ResultTable:
    """A titled table of methods, in the order of the report's labels."""

    title: str
    header: Sequence[str]
    lines: Sequence[Line]
    findings: Sequence[str] = ()
    """Conclusions from the numbers, as sentences."""
    labels: int = 1
    """How many leading columns are labels."""

    @property
    def references(self) -> list[Line]:
        return [line for line in self.lines if line.is_reference]

    @property
    def references_first(self) -> list[Line]:
        return [*self.references, *(line for line in self.lines if not line.is_reference)]


def measure_name(direction: str, k: int = GAIN_K) -> str:
    """Return `I2T R@1 (%)` or `Accuracy (%)`."""
    return "Accuracy (%)" if direction == "ACC" else f"{direction} R@{k} (%)"


def cell_name(cell: Cell) -> str:
    """Return `I2T R@1` or `accuracy`."""
    return "accuracy" if cell[0] == "ACC" else f"{cell[0]} R@{cell[1]}"


def only(report: Report, direction: str, k: int) -> list[Row]:
    """Return the rows of one direction and k."""
    return [row for row in report.rows if (row.direction, row.k) == (direction, k)]


def cells_of(report: Report, dataset: str = "") -> list[Cell]:
    """Return every direction and k that was measured, on one data set or on any."""
    cells = {(row.direction, row.k) for row in report.rows if dataset in ("", row.dataset)}
    return sorted(cells, key=lambda cell: (ROW_DIRECTIONS.index(cell[0]), cell[1]))


def directions(report: Report) -> list[str]:
    """Return the directions that were measured."""
    return list(dict.fromkeys(direction for direction, _ in cells_of(report)))


def datasets_of(report: Report) -> list[str]:
    """Return the data sets of the rows, in order."""
    return list(dict.fromkeys(row.dataset for row in report.rows))


def means(
    report: Report, cells: Sequence[Cell], dataset: str = "", digits: int = 2, published: Published | None = None
) -> list[Line]:
    """Return the means over the tasks of a data set, or of all, one line per method.

    The best and second best of each cell are marked.
    published: numbers to show beside the measured ones, with the difference.
    """
    average = averages(report.rows, dataset)
    columns = [{method: own[cell] for method, own in average.items() if cell in own} for cell in cells]
    marks = [_marks(column, digits) for column in columns]
    lines = []
    for method, label in report.labels.items():
        if method in average:
            others = [(published or {}).get((method, cell)) for cell in cells]
            values = [column.get(method) for column in columns]
            numbers = [_number(value, other, digits) for value, other in zip(values, others, strict=True)]
            lines.append(Line(method, [label, *numbers], ["", *(by_method.get(method, "") for by_method in marks)]))
    return lines


def _number(value: float | None, published: float | None, digits: int) -> str:
    if value is None:
        return ""
    own = f"{value:.{digits}f}"
    return own if published is None else f"{own} ({published:.2f}, {value - published:+.{digits}f})"


def _marks(column: Mapping[str, float], digits: int) -> dict[str, str]:
    """Return the mark of each method by its printed number.

    Equal numbers share a mark. If all numbers are equal, none is marked.
    """
    printed = {method: round(value, digits) for method, value in column.items() if method not in REFERENCES}
    ranked = sorted(set(printed.values()), reverse=True)
    tags = dict(zip(ranked, (BEST, SECOND), strict=False)) if len(ranked) > 1 else {}
    return {method: tags[value] for method, value in printed.items() if value in tags}


def ranges(report: Report, cells: Sequence[Cell]) -> list[Line]:
    """Return the lowest and highest build of every mean in `means`."""
    by_method, lines = build_ranges(report.rows), []
    for method, label in report.labels.items():
        if method in by_method:
            ends = [by_method[method].get(cell) for cell in cells]
            texts = [f"{end[0]:.2f} to {end[1]:.2f}" if end else "" for end in ends]
            lines.append(Line(method, [label, *texts], [""] * (1 + len(cells))))
    return lines


def differences(report: Report, cells: Sequence[Cell]) -> list[Line]:
    """Return mean differences to `against` with their intervals, and mark those that exclude zero."""
    lines = []
    for method, label in report.labels.items():
        gaps = [report.differences.get((method, *cell)) for cell in cells]
        if method != report.against and any(gaps):
            lines.append(_gap_line(method, [label], gaps))
    return lines


def _gap(gap: Interval) -> str:
    return f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]"


_SENTENCES = {SAME: "same data set", ACROSS: "other data sets", UNRELATED: "unrelated"}
"""Column headings for the source of the other sentences."""


def sentence_table(report: Report, short: bool = False) -> ResultTable | None:
    """Return the gain of a task's own sentence over other sentences, or None if no other was measured.

    A short table has one line per kind of other sentence instead of columns.
    """
    gains = report.sentence_gains
    cells = [cell for cell in cells_of(report) if cell[1] == GAIN_K]
    columns = [(kind, *cell) for kind in _SENTENCES for cell in cells]
    columns = [column for column in columns if any((kind, d, k) == column for kind, _, d, k in gains)]
    if not columns:
        return None
    title = f"sentence gain: {report.tasks()}, own sentence - other sentences"
    findings = _gain_findings(report, cells)
    if short:
        kinds = list(dict.fromkeys(kind for kind, *_ in columns))
        return ResultTable(title, *_gains_by_kind(report, kinds, cells), findings, labels=2)
    header = ["method", *(f"{cell_name((d, k))} - {_SENTENCES[kind]}" for kind, d, k in columns)]
    lines = []
    for method, label in report.labels.items():
        own = [gains.get((kind, method, d, k)) for kind, d, k in columns]
        if any(own):
            lines.append(_gap_line(method, [label], own))
    return ResultTable(title, header, lines, findings)


def _gains_by_kind(report: Report, kinds: Sequence[str], cells: Sequence[Cell]) -> tuple[Sequence[str], Sequence[Line]]:
    """Return the header and lines of a short table. Only the first line of a method has its label."""
    lines: list[Line] = []
    for method, label in report.labels.items():
        for kind in kinds:
            own = [report.sentence_gains.get((kind, method, *cell)) for cell in cells]
            if any(own):
                first = not lines or lines[-1].method != method
                lines.append(_gap_line(method, [label if first else "", _SENTENCES[kind]], own))
    return ["method", "other sentences", *map(cell_name, cells)], lines


def _gap_line(method: str, labels: Sequence[str], gaps: Sequence[Interval | None]) -> Line:
    marks = [CLEAR if gap and is_clear(gap) else "" for gap in gaps]
    return Line(method, [*labels, *(_gap(gap) if gap else "" for gap in gaps)], [*[""] * len(labels), *marks])


def _gain_findings(report: Report, cells: Sequence[Cell]) -> list[str]:
    """Say which methods are better with a task's own sentence than with another sentence."""
    findings = []
    kinds = [kind for kind in _SENTENCES if any(one == kind for one, *_ in report.sentence_gains)]
    for d, k in cells:
        gaps = {m: gap for m in report.labels if (gap := report.sentence_gains.get((kinds[0], m, d, k)))}
        clear = {m: gap for m, gap in gaps.items() if is_clear(gap)}
        better = [f"{report.labels[m]} ({gap[0]:+.1f})" for m, gap in clear.items() if gap[0] > 0]
        worse = [f"{report.labels[m]} ({gap[0]:+.1f})" for m, gap in clear.items() if gap[0] < 0]
        unclear = [report.labels[m] for m in gaps if m not in clear]
        said = (("better with the own sentence", better), ("worse", worse), ("no significant difference", unclear))
        parts = [f"{text}: {', '.join(some)}" for text, some in said if some]
        if parts:
            findings.append(f"{cell_name((d, k))}, other sentences {_of(kinds[0])}: {'; '.join(parts)}.")
    if ignoring := [report.labels[m] for m in not_reading(report.labels, report.controls) if m not in REFERENCES]:
        findings.append(
            "Not measured with other sentences, because the sentence does not change the adapter or the method is "
            f"fitted to the task's pairs: {', '.join(ignoring)}."
        )
    return findings


def _of(kind: str) -> str:
    return "" if kind == UNRELATED else f"of the {_SENTENCES[kind]}"


def result_tables(
    report: Report, published: Mapping[str, Published] | None = None, short: bool = False
) -> list[ResultTable]:
    """Return the tables that reporters print.

    Retrieval and classification are separate. All tasks together come first, then each data set.
    published: data set to numbers to show beside the measured ones.
    short: for narrow output, with R@1 only and differences below the numbers. The number and order of tables are the
    same.
    """
    tables = []
    kinds = [[row for row in report.rows if (row.direction == "ACC") == accuracy] for accuracy in (False, True)]
    for rows, kind in zip(kinds, ("retrieval", "classification"), strict=True):
        part = replace(report, rows=rows)
        datasets = datasets_of(part)
        if len(datasets) > 1:
            tables.append(_section(part, kind if all(kinds) else "all", "", None, True, short))
        single = len(datasets) == 1
        tables += [_section(part, name, name, (published or {}).get(name), single, short) for name in datasets]
    return [*tables, *filter(None, [sentence_table(report, short)])]


def _section(
    report: Report, name: str, dataset: str, published: Published | None, whole: bool, short: bool
) -> ResultTable:
    """Return a table of one kind. If `whole`, it has differences and recovery at R@1, and findings."""
    cells = cells_of(report)
    first = [cell for cell in cells if cell[1] == GAIN_K]
    if short and first:
        cells = first
    header = ["method", *map(cell_name, cells)]
    lines = means(report, cells, dataset, 1, published)
    title = f"{name}: {report.tasks(dataset)}"
    if not whole:
        return ResultTable(title, header, lines)
    compared = {line.method: line.cells[1:] for line in differences(report, first)}
    if short:
        lines = [replace(line, beneath=["", *compared.get(line.method, ())]) for line in lines]
    else:
        header += [f"{cell_name(cell)} - {report.against}" for cell in first] + ["recovery"]
        average = averages(report.rows, dataset)
        lines = [_with_comparison(line, compared.get(line.method, [""] * len(first)), average, first) for line in lines]
    spread = (build_sentences if report.builds else draw_sentences)(report, dataset, first)
    return ResultTable(title, header, lines, [*difference_sentences(report, first), *spread])


def _with_comparison(
    line: Line, gaps: Sequence[str], average: Mapping[str, Mapping[Cell, float]], first: Sequence[Cell]
) -> Line:
    shares = [recovery(average, line.method, cell) for cell in first if cell in average[line.method]]
    known = [f"{share:.2f}" for share in shares if share is not None]
    more = [*gaps, " / ".join(known) if known and len(known) == len(shares) else ""]
    return replace(line, cells=[*line.cells, *more], marks=[*line.marks, *[""] * len(more)])


def difference_sentences(report: Report, cells: Sequence[Cell]) -> list[str]:
    """Say which methods are better or worse than `against`, where the interval excludes zero."""
    sentences, rival = [], report.labels.get(report.against, report.against)
    for cell in cells:
        gaps = {m: gap for m in report.labels if m != report.against and (gap := report.differences.get((m, *cell)))}
        clear = {m: gap for m, gap in gaps.items() if is_clear(gap)}
        parts = [
            f"{word} than {rival}: " + ", ".join(f"{report.labels[m]} ({gap[0]:+.1f})" for m, gap in some.items())
            for word, sign in (("better", 1), ("worse", -1))
            if (some := {m: gap for m, gap in clear.items() if gap[0] * sign > 0})
        ]
        if rest := [report.labels[m] for m in gaps if m not in clear]:
            parts.append(f"no significant difference from {rival}: {', '.join(rest)}")
        if parts:
            sentences.append(f"{cell_name(cell)}: {'; '.join(parts)}.")
    return sentences


def draw_sentences(report: Report, dataset: str, cells: Sequence[Cell]) -> list[str]:
    """Say how much a method's draws differ in recall or accuracy."""
    sentences = []
    for method, by_cell in spreads(report.rows, dataset).items():
        parts = [
            f"{cell_name(cell)} {by_cell[cell].worst:.1f} to {by_cell[cell].best:.1f} "
            f"(deviation {by_cell[cell].deviation:.2f})"
            for cell in cells
            if cell in by_cell
        ]
        count = max(spread.draws for spread in by_cell.values())
        label = report.labels.get(method, method)
        sentences.append(f"{label}, worst to best of {count} draws per task: {', '.join(parts)}.")
    return sentences


def build_sentences(report: Report, dataset: str, cells: Sequence[Cell]) -> list[str]:
    """Say how much the builds differ for each method."""
    sentences = []
    for method, by_cell in build_ranges(report.rows, dataset).items():
        parts = [
            f"{cell_name(cell)} {by_cell[cell][0]:.1f} to {by_cell[cell][1]:.1f}" for cell in cells if cell in by_cell
        ]
        label = report.labels.get(method, method)
        sentences.append(f"{label}, lowest to highest of {len(report.builds)} builds: {', '.join(parts)}.")
    return sentences


def result_legend(report: Report, short: bool = False) -> str:
    """Explain the columns of `result_tables`."""
    kinds = {row.direction == "ACC" for row in report.rows}
    measures = ["R@k: recall in percent."] * (False in kinds)
    measures += ["accuracy: top-1 accuracy in percent."] * (True in kinds)
    at = "; ".join(["at R@1, I2T / T2I"] * (False in kinds) + ["of accuracy"] * (True in kinds))
    drawn = "tasks, queries, builds and draws" if report.builds else "tasks, queries, seeds and samples"
    difference = f"Below: mean difference to {report.against}" if short else f"'- {report.against}': mean difference"
    recovered = "" if short else f"recovery: (method - zero-shot) / (Oracle - zero-shot) {at}. "
    return (
        f"{' '.join(measures)} {difference} with its 95 % confidence interval, paired bootstrap over {drawn}. "
        f"{recovered}Chance and the Oracle, which was trained on the task's own photos, are listed separately."
    )
