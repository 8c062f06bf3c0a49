"""Tables on a terminal show cells as they are."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglora_cli import cli
from sglora_cli.cli.output import echo, paragraph, print_json, print_rows
from sglora_cli.files.escape import printable

few = settings(max_examples=150, derandomize=True, database=None, deadline=None)


def test_square_brackets_are_text_and_no_markup(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_rows(("name",), [["[/x] a"], ["[bold]b"]])
    output = capsys.readouterr().out
    assert "[/x] a" in output
    assert "[bold]b" in output


SENTENCE = "several words that need some room, and image-text is one of them"


@pytest.fixture
def at(monkeypatch):
    """Standard output is a terminal of so many columns."""

    def set_columns(columns: int) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("NO_COLOR", "1")

    return set_columns


@pytest.mark.parametrize("columns", [46, 60, 70])
def test_sentences_wrap_between_words_beside_names_that_stay_whole(capsys, at, columns):
    at(columns)
    print_rows(("name", "what"), [["a-name-of-one-word", SENTENCE], ["b", "short"]], words=("what",))
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "what"]
    assert lines[0].startswith("a-name-of-one-word  several words")
    assert max(map(len, lines)) <= columns
    start = len("a-name-of-one-word  ")
    assert [word for line in lines[:-1] for word in line[start:].split()] == SENTENCE.split()
    assert lines[-1].split() == ["b", "short"]


@pytest.mark.parametrize("columns", [22, 40])
def test_sentences_stand_below_their_row_where_they_have_no_room_beside_it(capsys, at, columns):
    at(columns)
    print_rows(("name", "what", "number"), [["a-name-of-one-word", SENTENCE, "7"]], words=("what",))
    header, first, *below = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "number"]
    assert first.split() == ["a-name-of-one-word", "7"]
    assert all(line.startswith("    ") for line in below)
    assert [word for line in below for word in line.split()] == SENTENCE.split()
    assert max(map(len, below)) <= max(columns, 24)


def test_of_several_columns_of_sentences_each_is_named_below_its_row(capsys, at):
    at(30)
    print_rows(("differs", "A", "B"), [["description", "one sentence", "another one"]], words=("A", "B"))
    assert capsys.readouterr().out.splitlines()[1:] == ["description", "    A  one sentence", "    B  another one"]


@pytest.mark.parametrize("columns", [10, 24, 80])
def test_columns_without_sentences_are_on_one_line_in_any_terminal(capsys, at, columns):
    at(columns)
    print_rows(("name", "number"), [["a-name-of-one-word", "123456789.123"]])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "name                number",
        "a-name-of-one-word  123456789.123",
    ]


def test_wide_letters_take_two_columns(capsys, at):
    at(40)
    print_rows(("name", "what"), [["猫", "cat"], ["dog", "dog"]], words=("what",))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()[1:]] == ["猫    cat", "dog   dog"]


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


def test_every_line_of_a_command_is_escaped():
    """Commands print by `echo`. What has colours, or was laid out by a reporter, is escaped before."""
    escaped = ("nl=False", "marked(", "source_template")
    for path in sorted((Path(cli.__file__).parent / "commands").rglob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "print"):
                call = ast.get_source_segment(text, node) or ""
                assert any(word in call for word in escaped), f"{path.name}, line {node.lineno}: use output.echo"


def test_a_result_cannot_control_the_terminal(capsys):
    echo("a\x1b[2Jb\nc\u202e")
    assert capsys.readouterr().out == "a\\x1b[2Jb\nc\\u202e\n"


def test_numbers_that_json_lacks_are_null(capsys):
    print_json({"a": float("nan"), "b": [1.5, (float("inf"), {"c": -float("inf")})], "d": "NaN"}, lines=True)
    assert capsys.readouterr().out == '{"a": null, "b": [1.5, [null, {"c": null}]], "d": "NaN"}\n'
