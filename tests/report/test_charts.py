"""Charts: their numbers are those of slow definitions, and what is drawn is those numbers."""

from __future__ import annotations

import io
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from sglora_cli.bench import tables
from sglora_cli.errors import Unavailable
from sglora_cli.plugin.values import Report, Row
from sglora_cli.report import charts, plot
from sglora_cli.report.charts import Bars, Heat, Lines, Map, Scatter, Stacks

VALUES = {
    "zero-shot": [10.0, 20.0, 60.0],
    "oracle": [50.0, 60.0, 70.0],
    "top-k": [20.0, 20.0, 50.0],
    "new": [40, 30, 80],
}
LABELS = {"zero-shot": "Zero-shot", "oracle": "Oracle", "top-k": "Top-K", "new": "New & <b>"}


def report() -> Report:
    rows = [
        Row(method, "d", f"t{t}", sample, direction, k, value / (2 if direction == "T2I" else 1) + 5 * sample - 2.5)
        for method, values in VALUES.items()
        for t, value in enumerate(values)
        for direction in ("I2T", "T2I")
        for k in (1, 5)
        for sample in (0, 1)
    ]
    gaps = {("new", "I2T", 1): (20.0, 11.0, 32.0), ("zero-shot", "I2T", 1): (0.0, -4.0, 6.0)}
    return Report("p", rows, LABELS, gaps, "top-k")


def chart_of(kind: type) -> object:
    return {
        Bars: Bars("R@1", ["a", "$x$ and $y$"], [30.0, 10.0], [25.0, None], [36.0, None], ("a", 30.0), [False, True]),
        Lines: Lines("K", "R@1", [1, 2, 4], {"a": [1.0, 2.0, 3.0], "b": [3.0, 2.0, 1.0]}, {"zero": 1.5}, 2),
        Scatter: Scatter("similarity", "gain", {"d": [("t", 0.1, 2.0)], "e": [("u", 0.3, -1.0)]}, 1.0, zero=True),
        Stacks: Stacks("weight", ["t", "u"], [[("a", "d", 0.7), ("b", "e", 0.3)], [("b", "e", 1.0)]]),
        Heat: Heat("points", ["a", "b"], ["a", "b", "none"], [[0.0, -2.0, None], [1.0, 0.0, -3.0]], {0: 0, 1: 1}),
        Map: Map([("", "draw", "draw", 0.0, 1.0), ("Oracle", "oracle", "oracle", 2.0, 3.0)]),
    }[kind]


KINDS = pytest.mark.parametrize("kind", [Bars, Lines, Scatter, Stacks, Map, Heat], ids=lambda kind: kind.__name__)


def test_bars_are_means_over_samples_and_tasks_best_first():
    chart = charts.bars(report(), "I2T").chart
    assert list(chart.names) == ["Oracle", "New & <b>", "Zero-shot", "Top-K"]
    assert chart.values == pytest.approx([sum(VALUES[m]) / 3 for m in ("oracle", "new", "zero-shot", "top-k")])
    assert chart.line == ("Top-K", pytest.approx(30.0))
    assert list(chart.aside) == [True, False, False, False]


def test_whiskers_are_the_intervals_of_the_difference_around_the_compared_method():
    chart = charts.bars(report(), "I2T").chart
    assert chart.low == [None, pytest.approx(41.0), pytest.approx(26.0), None]
    assert chart.high == [None, pytest.approx(62.0), pytest.approx(36.0), None]


def test_bars_of_a_report_without_the_compared_method_have_no_line():
    whole = report()
    rows = [row for row in whole.rows if row.method != "top-k"]
    figure = charts.bars(Report("p", rows, LABELS, {}, "top-k"), "T2I")
    assert figure.chart.line is None
    assert "Whiskers" not in figure.caption
    assert set(figure.chart.low) == {None}


def test_accuracy_is_no_recall():
    rows = [Row(m, "cifar", "people", 0, "ACC", 1, value) for m, value in (("top-k", 60.0), ("new", 80.0))]
    mixed = Report("p", [*report().rows, *rows], LABELS, {}, "top-k")
    assert tables.directions(mixed) == ["I2T", "T2I", "ACC"]
    figure = charts.bars(mixed, "ACC")
    assert figure.title == "Accuracy (%)"
    assert dict(zip(figure.chart.names, figure.chart.values, strict=True)) == {"New & <b>": 80.0, "Top-K": 60.0}
    assert charts.bars(mixed, "I2T").chart.values == charts.bars(report(), "I2T").chart.values


def test_a_gain_is_the_mean_of_both_directions_at_one():
    expected = {("d", f"t{t}"): 0.75 * (VALUES["new"][t] - VALUES["zero-shot"][t]) for t in range(3)}
    assert charts.gains(report(), "new") == pytest.approx(expected)
    assert charts.gains(report(), "unknown") == {}
    assert charts.gains(Report("p", [r for r in report().rows if r.method == "new"], LABELS, {}, "top-k"), "new") == {}


def test_bars_are_drawn_as_long_as_their_values():
    with plot._style():
        axes = plot.plot(chart_of(Bars)).axes[0]
    assert [patch.get_width() for patch in axes.patches] == [30.0, 10.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "$x$ and $y$"]
    assert [text.get_text() for text in axes.texts] == ["30.0", "10.0"]
    whisker = axes.collections[0].get_segments()[0]
    assert [point[0] for point in whisker] == [25.0, 36.0]


def test_lines_are_drawn_through_their_values():
    with plot._style():
        axes = plot.plot(chart_of(Lines)).axes[0]
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert drawn["a"] == ([1, 2, 4], [1.0, 2.0, 3.0])
    assert drawn["b"] == ([1, 2, 4], [3.0, 2.0, 1.0])
    assert drawn["zero"][1] == [1.5, 1.5]


def test_points_are_drawn_where_they_are():
    with plot._style():
        scatter, places = (plot.plot(chart_of(kind)).axes[0] for kind in (Scatter, Map))
    assert [tuple(c.get_offsets()[0]) for c in scatter.collections] == [(0.1, 2.0), (0.3, -1.0)]
    assert [tuple(c.get_offsets()[0]) for c in places.collections] == [(0.0, 1.0), (2.0, 3.0)]
    assert [text.get_text() for text in places.texts] == ["1"]
    assert "1  Oracle" in [text.get_text() for text in places.figure.legends[0].get_texts()]


def test_numbers_of_points_that_lie_on_each_other_do_not():
    points = [("a", "x", "x", 0.0, 0.0), ("b", "x", "x", 0.0, 0.0), ("c", "x", "x", 5.0, 5.0)]
    with plot._style():
        texts = plot.plot(Map(points)).axes[0].texts
    assert [text.get_text() for text in texts] == ["1", "2", "3"]
    assert [text.get_ha() for text in texts] == ["left", "right", "left"]


def test_parts_of_a_stack_follow_each_other():
    with plot._style():
        axes = plot.plot(chart_of(Stacks)).axes[0]
    assert [p.get_x() for p in axes.patches] == pytest.approx([0.0, 0.7, 0.0])
    assert [p.get_width() for p in axes.patches] == pytest.approx([0.7, 0.3, 1.0])
    first, second, third = (p.get_facecolor() for p in axes.patches)
    assert second == third != first  # one data set, one colour


@KINDS
def test_the_same_chart_gives_the_same_bytes(kind, monkeypatch):
    import matplotlib

    first = plot.svg(chart_of(kind)), plot.png(chart_of(kind))
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "none", "axes.facecolor": "red"}):  # the user's own
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
        assert (plot.svg(chart_of(kind)), plot.png(chart_of(kind))) == first
        assert matplotlib.rcParams["font.size"] == 30
    root = ElementTree.fromstring(first[0])
    assert not [node for node in root.iter() if node.tag.endswith("}text")]  # letters are outlines
    assert b"<dc:date>" not in first[0]
    assert 900 < Image.open(io.BytesIO(first[1])).width < 1200


@KINDS
def test_a_table_has_a_cell_for_every_column(kind):
    body = chart_of(kind).table()
    assert {len(row) for row in body} == {len(body[0])}
    assert len(body) > 1


def test_tables_have_the_numbers_of_the_charts():
    assert chart_of(Bars).table()[1:] == [["a", "30.00", "25.00", "36.00"], ["$x$ and $y$", "10.00", "", ""]]
    assert chart_of(Lines).table() == [
        ["K", "a", "b", "zero"],
        ["1", "1.00", "3.00", "1.50"],
        ["2", "2.00", "2.00", "1.50"],
        ["4", "3.00", "1.00", "1.50"],
    ]
    assert chart_of(Stacks).table()[1:] == [["t", "d/a 0.700", "e/b 0.300"], ["u", "e/b 1.000", ""]]


def test_names_that_no_figure_can_show_are_shown_somehow():
    assert plot.short("a" * 40) == "a" * 25 + "…"
    assert plot.short("a\nb\ud83d") == "a?b?"
    names = ["x" * 300, "$\\frac$", "\ud83d", "a\x1b[31m"]
    plot.svg(Bars("R@1", names, [1.0] * 4, [None] * 4, [None] * 4, None, [False] * 4))


@pytest.mark.parametrize("count", [1, 20])
def test_every_bar_keeps_its_height(count):
    chart = Bars(
        "R@1", [f"m{n}" for n in range(count)], [5.0] * count, [None] * count, [None] * count, None, [False] * count
    )
    with plot._style():
        assert plot.plot(chart).get_size_inches()[1] == pytest.approx(0.55 + 0.2 * count)


def test_without_the_library_the_hint_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Unavailable) as raised:
        plot.svg(chart_of(Bars))
    assert raised.value.message == "figures need matplotlib, which is not installed"
    assert raised.value.hint == 'pip install "sglora[report]"'


def test_the_sentence_map_has_each_sentence_minus_the_tasks_own():
    """x is asked with the other task's sentence on t1, and with an unrelated one on both; y ignores the sentence."""

    def rows_of(task: str, sentence: str, *values: float) -> list[Row]:
        pairs = zip(("I2T", "T2I"), values, strict=True)
        return [Row("x", "d", task, 0, d, 1, value, sentence=sentence) for d, value in pairs]

    own = [*rows_of("t1", "", 30.0, 20.0), *rows_of("t2", "", 10.0, 40.0)]
    own += [Row("y", "d", task, 0, d, 1, 99.0) for task in ("t1", "t2") for d in ("I2T", "T2I")]
    controls = rows_of("t1", "d/t2", 20.0, 10.0) + rows_of("t1", "unrelated", 30.0, 26.0)
    controls += rows_of("t2", "unrelated", 10.0, 38.0)
    report = Report("p", own, {"x": "X", "y": "Y"}, {}, "y", controls=controls)
    figure = charts.sentence_map(report, "y")
    assert figure.title == "Sentence gain: X"
    assert (figure.chart.rows, figure.chart.columns) == (["d/t1", "d/t2"], ["d/t1", "d/t2", "unrelated"])
    assert figure.chart.values == [[0.0, -10.0, 3.0], [None, 0.0, -1.0]]
    assert "The right sentence was better in 2 of 3 pairs." in figure.caption
    assert charts.sentence_map(Report("p", own, {"x": "X"}, {}, "x"), "x") is None
