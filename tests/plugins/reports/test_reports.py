"""Reporters: marks, findings, the paper's numbers, and text that must be escaped."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import pytest
from made_rows import REPORT_LABELS, VALUES, made_report

from sglora_cli.plugin.values import Row
from sglora_reports import as_csv, as_json
from sglora_reports.text import latex, markdown, plain, sections, terminal


def test_best_and_second_are_marked_by_what_is_printed_and_the_oracle_stands_apart():
    (section,) = sections(made_report(("I2T",)))
    assert [line.method for line in section.references] == ["chance", "oracle"]
    marks = {line.method: line.marks[1] for line in section.references_first}
    assert marks == {"chance": "", "oracle": "", "zero-shot": "", "top-k": "best", "x": "best", "y": "second"}
    text = markdown(made_report(("I2T",)))
    assert "| X | **31.0** | **31.0** | +5.0 [+4.0, +6.0] | 0.14 |" in text
    assert "| Y | <u>25.0</u> |" in text
    assert "| Oracle | 98.0 |" in text
    assert r"X & \textbf{31.0} & \textbf{31.0}" in latex(made_report(("I2T",)))
    assert r"Y & \underline{25.0}" in latex(made_report(("I2T",)))


def test_a_terminal_shows_the_marks(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    text = terminal(made_report(("I2T",)))
    assert "\x1b[1m31.0\x1b[0m" in text
    assert "\x1b[4m25.0\x1b[0m" in text


def test_better_is_said_only_of_an_interval_clear_of_zero():
    text = plain(made_report(("ACC",)))
    line = next(line for line in text.splitlines() if line.startswith("accuracy:"))
    assert line == (
        "accuracy: better than Top-K: X (+5.0); worse than Top-K: Y (-5.0); "
        "no significant difference from Top-K: Zero-shot."
    )


def test_the_papers_numbers_stand_beside_cells_of_the_papers_protocol():
    protocol = {"backbone": "clip-vit-b-16", "rank": 2, "k": 4, "experts": ["coco"]}
    text = plain(made_report(("I2T",), paper=True, protocol=protocol))
    assert "31.0 (71.55, -40.5)" in text  # top-k at I2T R@1
    assert "31.0 (87.54, -56.5)" in text  # and at R@5
    assert "brackets show the paper's number and the difference to it. Source: SG-LoRA (arXiv 2509.10535)" in text
    assert "71.55" not in plain(made_report(("I2T",), protocol=protocol))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"backbone": "starter"}, "not shown: backbone is 'starter', not 'clip-vit-b-16' as in the paper"),
        ({"rank": 4}, "not shown: rank is 4, not 2 as in the paper"),
        ({"k": 2}, "not shown: k is 2, not 4 as in the paper"),
        ({"experts": ["pets", "x"]}, "the paper has no table for experts from pets + x on coco"),
    ],
)
def test_another_protocol_says_why_there_are_no_numbers(changed, reason):
    protocol = {"backbone": "clip-vit-b-16", "rank": 2, "k": 4, "experts": ["coco"], **changed}
    text = plain(made_report(("I2T",), paper=True, protocol=protocol))
    assert reason in text
    assert "71.55" not in text


def test_names_are_escaped():
    strange = {**REPORT_LABELS, "x": r"A_1 & 50% | <b> \x"}
    text = latex(replace(made_report(("I2T",)), labels=strange))
    assert r"A\_1 \& 50\% \textbar{} \textless{}b\textgreater{} \textbackslash{}x & " in text
    assert r"| A_1 & 50% \| &lt;b> \\x |" in markdown(replace(made_report(("I2T",)), labels=strange))


def test_json_has_an_average_of_every_method():
    assert as_json(made_report()).count("accuracy") == len(VALUES) + 3


def test_csv_has_every_row():
    lines = as_csv(made_report(("ACC",))).splitlines()
    assert lines[0] == "method,dataset,task,sample,direction,k,value,seed,sentence"
    assert lines[1] == "chance,cifar100,t-1,0,ACC,1,98.0,0,"
    assert len(lines) == 1 + 2 * len(VALUES)


def test_draws_say_from_each_tasks_worst_to_its_best():
    one = made_report(("I2T",))
    drawn = [
        Row("x", "coco", task, sample, "I2T", 1, value)
        for task, values in (("t-1", (10.0, 20.0, 60.0)), ("t1", (40.0, 40.0, 40.0)))
        for sample, value in enumerate(values)
    ]
    rows = [row for row in one.rows if (row.method, row.k) != ("x", 1)]
    several = replace(one, rows=[*rows, *drawn])
    # (10 + 40) / 2, (60 + 40) / 2; the variance of 10, 20, 60 is (400 + 100 + 900) / 3
    line = "X, worst to best of 3 draws per task: I2T R@1 25.0 to 50.0 (deviation 10.80)."
    assert line in plain(several).splitlines()
    assert "draws:" not in plain(one)
    draws = json.loads(as_json(several))["draws"]["x I2T R@1"]
    assert draws == {"draws": 3, "worst": 25.0, "best": 50.0, "deviation": pytest.approx((1400 / 3) ** 0.5 / 2)}
    assert json.loads(as_json(one))["draws"] == {}


def test_a_narrow_terminal_cuts_no_number(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    narrow = terminal(made_report(("I2T",)))
    assert "…" not in narrow
    for number in re.findall(r"\d+\.\d", plain(made_report(("I2T",)))):
        assert number in narrow


NUMBER = re.compile(r"[+-]?[0-9]+[.][0-9]+")


@pytest.fixture
def screen(monkeypatch):
    """The lines of a report in a terminal of so many columns."""

    def lines(report, columns: int) -> list[str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "dumb")
        return terminal(report).splitlines()

    return lines


@pytest.mark.parametrize("columns", [38, 45, 60, 80, 100, 200])
def test_a_terminal_shows_every_number_whole_and_on_its_line(screen, columns):
    report = made_report(("I2T", "T2I"))
    shown = screen(report, columns)
    assert max(map(len, shown)) <= columns
    printed = {number for line in plain(report).splitlines() for number in NUMBER.findall(line)}
    assert {number for line in shown for number in NUMBER.findall(line)} <= printed


def test_a_narrow_terminal_has_recall_at_1_and_intervals_beneath_and_says_so(screen):
    shown = screen(made_report(("I2T", "T2I")), 60)
    start = shown.index("method               I2T R@1            T2I R@1")
    assert shown[start + 1 : start + 4] == [
        "Chance                  99.0               99.0",
        "Oracle                  98.0               98.0",
        "Zero-shot               20.0               20.0",
    ]
    assert shown[start + 4] == "           +0.5 [-0.5, +1.5]  +0.5 [-0.5, +1.5]"
    assert "R@5" not in "".join(shown)
    text = " ".join(" ".join(shown).split())
    assert "Tables are shortened to R@1 to fit 60 columns. Use `--as table` or" in text
    assert "recovery" not in text
    whole = screen(made_report(("I2T", "T2I")), 200)
    assert "R@5" in "".join(whole)
    assert "Tables are short" not in "".join(whole)


def test_the_width_that_a_short_table_asks_for_shows_everything(screen):
    report = made_report(("I2T", "T2I"))
    (needed,) = re.findall(r"or ([0-9]+)", " ".join(screen(report, 60)[-2:]))
    assert "Tables are short" in " ".join(screen(report, int(needed) - 1))
    assert "Tables are short" not in " ".join(screen(report, int(needed)))


def test_where_not_even_a_short_table_fits_a_method_stands_above_its_numbers(screen):
    shown = screen(made_report(("I2T", "T2I")), 45)
    start = shown.index("Zero-shot")
    assert shown[start + 1 : start + 3] == [
        "              20.0               20.0",
        " +0.5 [-0.5, +1.5]  +0.5 [-0.5, +1.5]",
    ]


def test_a_pipe_gets_all_columns_of_the_terminals_tables():
    assert "R@5" in terminal(made_report(("I2T",)))


def test_better_is_green_and_worse_is_red(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    text = terminal(made_report(("ACC",)))
    assert "\x1b[1;32mbetter\x1b[0m than Top-K: X (+5.0)" in text
    assert "\x1b[1;31mworse\x1b[0m than Top-K: Y (-5.0)" in text
