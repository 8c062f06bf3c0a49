"""Tables on a terminal show cells as they are."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglora_cli.cli.output import paragraph, print_rows, printable

few = settings(max_examples=150, derandomize=True, database=None, deadline=None)


def test_square_brackets_are_text_and_no_markup(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_rows(("name",), [["[/x] a"], ["[bold]b"]])
    output = capsys.readouterr().out
    assert "[/x] a" in output
    assert "[bold]b" in output


@pytest.mark.parametrize("columns", [20, 40])
def test_a_narrow_terminal_loses_no_letter(capsys, monkeypatch, columns):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    cells = ["averylongnamewithoutspaces" * 2, "several words that need some room"]
    print_rows(("name", "what"), [cells])
    output = capsys.readouterr().out
    assert "…" not in output
    for cell in cells:  # read down the columns, every letter is there
        assert all(output.count(letter) >= cell.count(letter) for letter in set(cell) - {" "})
    assert max(map(len, output.splitlines())) <= columns


@pytest.mark.parametrize("columns", [10, 24, 80])
def test_columns_that_stay_whole_are_on_one_line_in_any_terminal(capsys, monkeypatch, columns):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    print_rows(("name", "number"), [["a-name-of-one-word", "123456789.123"]], whole=("number",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("  123456789.123")
    assert "".join(line[: line.find("  ")] for line in lines[1:]).replace(" ", "") == "a-name-of-one-word"


def test_no_color_means_no_style(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_rows(("name",), [["a"]])
    assert "\x1b" not in capsys.readouterr().out


def test_paragraphs_fit_a_terminal_and_stay_whole_in_a_pipe(monkeypatch):
    text = "some words and /a/path/that/must/stay/whole/because/it/is/copied"
    assert paragraph(text, "ok ") == f"ok {text}"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    assert paragraph(text, "ok ") == "ok some words and\n   /a/path/that/must/stay/whole/because/it/is/copied"


@few
@given(st.text(st.characters(codec=None)))  # half surrogate pairs too
def test_what_is_printed_cannot_steer_a_terminal(text):
    printed = printable(text)
    assert printed.isprintable()
    printed.encode()
    if text.isprintable():
        assert printed == text
