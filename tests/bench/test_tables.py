"""Tables: classification apart, cells nobody measured, marks by what is printed, differences clear of zero."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest
from made_rows import made_report

from sglora_cli.bench.tables import cells_of, differences, directions, means, ranges, result_tables
from sglora_cli.plugin.values import Report, Row


def scored(**values: list[float]) -> Report:
    """A report of one number a task for every method."""
    rows = [Row(m, "pets", f"t{t}", 0, "I2T", 1, v) for m, several in values.items() for t, v in enumerate(several)]
    return Report("p", rows, {m: m.upper() for m in values}, {}, "a")


def test_classification_and_retrieval_do_not_meet():
    coco, cifar = result_tables(made_report())
    assert (coco.title, cifar.title) == ("coco: 2 unseen tasks", "cifar100: 2 unseen tasks")
    assert coco.header[1:5] == ["I2T R@1", "I2T R@5", "T2I R@1", "T2I R@5"]
    assert cifar.header == ["method", "accuracy", "accuracy - top-k", "recovery"]
    assert [line.cells[1] for line in cifar.references_first] == ["99.0", "98.0", "20.0", "31.0", "31.0", "25.0"]
    assert [line.cells[1] for line in cifar.lines] == ["99.0", "20.0", "98.0", "31.0", "31.0", "25.0"]


def test_several_data_sets_of_a_kind_have_a_table_together():
    one = made_report(("ACC",))
    two = replace(one, rows=[*one.rows, *(replace(row, dataset="other", value=0.0) for row in one.rows)])
    titles = [table.title for table in result_tables(two)]
    assert titles == ["all: 4 unseen tasks", "cifar100: 2 unseen tasks", "other: 2 unseen tasks"]
    mixed = replace(two, rows=[*two.rows, *made_report(("I2T",)).rows])
    assert [table.title for table in result_tables(mixed)][:2] == [
        "coco: 2 unseen tasks",
        "classification: 4 unseen tasks",
    ]


def test_a_cell_nobody_measured_is_empty():
    report = made_report(("I2T",))
    rows = [row for row in report.rows if (row.method, row.k) != ("y", 5)]
    (table,) = result_tables(replace(report, rows=rows))
    (line,) = [line for line in table.lines if line.method == "y"]
    assert line.cells[1:3] == ["25.0", ""]


def test_columns_have_one_order_whatever_the_order_of_the_rows():
    report = made_report()
    backwards = replace(report, rows=report.rows[::-1])
    assert cells_of(backwards) == [("I2T", 1), ("I2T", 5), ("T2I", 1), ("T2I", 5), ("ACC", 1)]
    assert cells_of(backwards, "cifar100") == [("ACC", 1)]
    assert directions(backwards) == ["I2T", "T2I", "ACC"]


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ({"a": [1.0], "b": [3.0], "c": [2.0]}, ["", "best", "second"]),
        ({"a": [1.004], "b": [1.0], "c": [0.5]}, ["best", "best", "second"]),  # both are printed as 1.00
        ({"a": [1.0], "b": [1.0]}, ["", ""]),
        ({"a": [1.0]}, [""]),
        ({"a": [1.0], "oracle": [9.0], "b": [2.0]}, ["second", "", "best"]),
    ],
)
def test_marks_are_of_what_is_printed_and_of_methods_that_compete(values, marks):
    assert [line.marks[1] for line in means(scored(**values), [("I2T", 1)])] == marks


def test_a_published_number_stands_beside_the_measured_one_and_moves_no_mark():
    report = scored(a=[30.0, 40.0], b=[20.0, 60.0])
    first, second = means(report, [("I2T", 1)], digits=1, published={("a", ("I2T", 1)): 36.04})
    assert first.cells == ["A", "35.0 (36.04, -1.0)"]
    assert second.cells == ["B", "40.0"]
    assert (first.marks[1], second.marks[1]) == ("second", "best")


def test_a_difference_is_marked_if_its_own_interval_is_clear_of_zero():
    gaps = {("b", "I2T", 1): (1.0, 0.04, 2.0), ("c", "I2T", 1): (1.0, 0.0, 2.0)}  # printed alike
    report = replace(scored(a=[1.0], b=[2.0], c=[2.0]), differences=gaps)
    lines = differences(report, [("I2T", 1)])
    assert [line.cells for line in lines] == [["B", "+1.0 [+0.0, +2.0]"], ["C", "+1.0 [+0.0, +2.0]"]]
    assert [line.marks[1] for line in lines] == ["clear", ""]


def test_ranges_are_the_means_of_the_lowest_and_the_highest_build():
    builds = [[10.0, 30.0], [50.0, 20.0], [0.0, 5.0]]
    rows = [
        Row("a", "pets", f"t{t}", 0, "I2T", 1, v, seed=n)
        for n, several in enumerate(builds)
        for t, v in enumerate(several)
    ]
    (line,) = ranges(Report("p", rows, {"a": "A"}, {}, "a", builds=("x", "y", "z")), [("I2T", 1)])
    assert line.cells[1] == f"{min(map(mean, builds)):.2f} to {max(map(mean, builds)):.2f}"


def test_short_tables_are_those_of_r1_with_differences_beneath():
    report = made_report()
    for long, short in zip(result_tables(report), result_tables(report, short=True), strict=True):
        assert (short.title, short.findings) == (long.title, long.findings)
        kept = [n for n, name in enumerate(long.header) if name in ("method", "accuracy") or name.endswith("R@1")]
        assert short.header == [long.header[n] for n in kept]
        gaps = [n for n, name in enumerate(long.header) if name.endswith("- top-k")]
        assert len(gaps) == len(kept) - 1
        for one, other in zip(long.lines, short.lines, strict=True):
            assert list(other.cells) == [one.cells[n] for n in kept]
            assert list(other.marks) == [one.marks[n] for n in kept]
            assert [*other.beneath[1:], *[""] * (len(kept) - len(other.beneath))] == [one.cells[n] for n in gaps]


def test_a_short_table_of_sentences_has_the_same_numbers_with_a_line_a_kind():
    gains = {
        (kind, method, d, 1): (value, value - 1, value + 1)
        for n, kind in enumerate(("same", "unrelated"))
        for method in ("x", "y")
        for d, value in (("I2T", n + 2.0), ("T2I", n - 2.0))
    }
    report = made_report(("I2T", "T2I"), sentence_gains=gains)
    long, short = (result_tables(report, short=one)[-1] for one in (False, True))
    assert short.header == ["method", "other sentences", "I2T R@1", "T2I R@1"]
    assert short.labels == 2
    assert [list(line.cells) for line in short.lines] == [
        ["X", "same data set", *long.lines[0].cells[1:3]],
        ["", "unrelated", *long.lines[0].cells[3:5]],
        ["Y", "same data set", *long.lines[1].cells[1:3]],
        ["", "unrelated", *long.lines[1].cells[3:5]],
    ]
