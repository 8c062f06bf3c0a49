"""What a person sees in terminals of several widths: nothing cut, nothing torn, and colour for one word."""

from __future__ import annotations

import json

import pytest
from program import program
from terminal import at_terminal

LISTS = {
    "plugins list": lambda facts: [plugin["name"] for plugin in facts["plugins"]],
    "pack list": lambda facts: [pack["name"] for pack in facts["packs"]],
    "pack recipes": lambda facts: [recipe["name"] for recipe in facts["recipes"]],
    "data list": lambda facts: [f"sglora data fetch {one['name']}" for one in facts["datasets"] if one["fetch"]],
    "cache info": lambda facts: [kind["kind"] for kind in facts["kinds"]],
    "settings": lambda facts: list(facts["settings"]),
    "docs": lambda facts: [page["name"] for page in facts["pages"]],
    "inspect starter-learned": lambda facts: ["train.joint_learning_rate", "hypernet-reconstruction"],
}


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", LISTS)
def test_lists_fit_the_terminal_and_what_is_copied_is_on_one_line(command, columns):
    screen = at_terminal(*command.split(), columns=columns)
    assert screen.exit_code == 0
    folder = [line for line in screen.lines if "/" in line and "home" in line]  # of the test, as long as it may be
    assert max(len(line) for line in screen.lines if line not in folder) <= columns
    assert "…" not in screen.written
    for name in LISTS[command](json.loads(program(*command.split(), "--json").stdout)):
        assert any(name in line for line in screen.lines), name


def sentences(facts: object) -> list[str]:
    """Every summary that a list has."""
    (rows,) = facts.values() if isinstance(facts, dict) else ()
    return [row["summary"] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", ["pack recipes", "docs"])
def test_sentences_wrap_between_words(command, columns):
    words = {word for line in at_terminal(*command.split(), columns=columns).lines for word in line.split()}
    for sentence in sentences(json.loads(program(*command.split(), "--json").stdout)):
        assert set(sentence.split()) <= words


@pytest.mark.slow
def test_errors_have_one_red_word_and_a_bold_one():
    screen = at_terminal("genrate", columns=80)
    assert screen.written == (
        "\x1b[31m\x1b[1merror:\x1b[0m no command named 'genrate'\n\x1b[1mhint:\x1b[0m did you mean 'generate'?\n"
    )
    assert screen.exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colour_gets_none(environment):
    for command in (["genrate"], ["plugins", "doctor"], ["pack", "recipes"], ["pack", "verify"]):
        assert "\x1b[3" not in at_terminal(*command, columns=80, **environment).written
    assert "\x1b" not in at_terminal("genrate", columns=80, **environment).written


@pytest.mark.slow
def test_healthy_is_green_and_the_rest_of_the_line_is_plain():
    (line,) = at_terminal("pack", "verify", columns=80).written.splitlines()
    assert line.startswith("\x1b[32m\x1b[1mhealthy\x1b[0m    starter: ")
    assert line.count("\x1b") == 3


@pytest.mark.slow
def test_notes_wrap_below_their_label_and_hints_stay_on_one_line(tmp_path):
    screen = at_terminal("generate", "a photo of a pug", "-o", tmp_path / "pug.safetensors", columns=60)
    start = next(n for n, line in enumerate(screen.lines) if line.startswith("generator  "))
    assert screen.lines[start + 1].startswith(" " * 11 + "what the task's photos and captions")
    again = at_terminal("generate", "a photo of a pug", "-o", tmp_path / "pug.safetensors", columns=20)
    assert again.exit_code == 2
    assert again.lines[-1].startswith("hint: ")
    assert len(again.lines[-1]) > 20


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_help_is_as_wide_as_the_terminal_up_to_100_columns_and_breaks_no_name(columns):
    lines = at_terminal("bench", "--help", columns=columns).lines
    width = max(len(line) for line in lines if not line.startswith("  sglora"))  # examples are copied as they are
    assert min(columns, 100) - 12 < width <= min(columns, 100)
    words = {word.strip(",.:") for line in lines for word in line.split()}
    assert {
        f"ablation-{name}" for name in ("k", "tau", "space", "samples", "description", "expert", "condition")
    } <= words
