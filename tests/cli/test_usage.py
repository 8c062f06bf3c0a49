"""A command line that cannot be meant: one style, one exit code, and the closest name."""

from __future__ import annotations

import json

import pytest

REFUSED = [
    ("genrate", "no command named 'genrate'", "did you mean 'generate'?"),
    ("xyzzy", "no command named 'xyzzy'", "see `sglora --help`"),
    ("verify", "no command named 'verify'", "did you mean 'pack verify'?"),
    ("show", "no command named 'show'", "did you mean 'pack show'?"),
    ("pack shwo", "no command named 'pack shwo'", "did you mean 'pack show'?"),
    ("pack xyzzy", "no command named 'pack xyzzy'", "see `sglora pack --help`"),
    ("settings ste pack x", "no command named 'settings ste'", "did you mean 'settings set'?"),
    ("generate x --sampels 3", "no option named '--sampels'", "did you mean '--samples'?"),
    ("--quite doctor", "no option named '--quite'", "did you mean '--quiet'?"),
    ("pack list --xyzzy", "no option named '--xyzzy'", "see `sglora pack list --help`"),
    ("generate x --samples", "option '--samples' requires an argument", "see `sglora generate --help`"),
    ("pack show --json=3", "option '--json' does not take a value", "see `sglora pack show --help`"),
    (
        "generate x --samples abc",
        "invalid value for '--samples': 'abc' is not a valid integer",
        "see `sglora generate --help`",
    ),
    (
        "plugins new x --kind genrator",
        "invalid value for '--kind': 'genrator' is not one of 'backbone', 'dataset', 'captioner', 'generator', "
        "'reporter', 'executor'",
        "did you mean 'generator'?",
    ),
    ("inspect", "missing argument 'THING'", "see `sglora inspect --help`"),
    ("inspect a b", "got unexpected extra argument (b)", "see `sglora inspect --help`"),
]


@pytest.mark.parametrize(("line", "message", "hint"), REFUSED)
def test_what_cannot_be_meant_is_a_usage_error_with_a_hint(run, line, message, hint):
    result = run(*line.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: {message}\nhint: {hint}\n"


@pytest.mark.parametrize(("line", "message", "hint"), REFUSED)
def test_with_json_it_is_an_object(run, line, message, hint):
    words = line.split()
    result = run(*words[:1], "--json", *words[1:])
    if words[0] not in ("inspect", "generate"):  # groups and no command have no --json
        assert json.loads(result.stderr)["error"]["exit_code"] == 2
        return
    facts = {"class": "UsageError", "message": message, "hint": hint, "exit_code": 2}
    assert json.loads(result.stderr) == {"error": facts}


@pytest.mark.parametrize("group", [(), ("pack",), ("plugins",)])
def test_a_group_without_a_command_shows_its_help(run, group):
    result = run(*group)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.rstrip() == run(*group, "--help").stdout.rstrip()


def test_a_hint_can_be_followed(run):
    hints = {hint.split("`")[1] for _, _, hint in REFUSED if "`" in hint}
    assert len(hints) >= 5
    for command in hints:
        assert run(*command.split()[1:]).exit_code == 0


LONG = "x" * 300
"""Longer than any file system's names."""


@pytest.mark.parametrize(
    "words",
    [
        ["pack", "init", ""],
        ["pack", "init", "."],
        ["pack", "init", "/"],
        ["search", "photos", "a", "--report", "/"],
        ["bench", "--rows", ""],
        ["bench", "--baselines", "", "--dry-run"],
        ["generate", "a mug", "-o", ""],
        ["import", "mug-peft", "-o", ""],
        ["search", LONG, "a"],
        ["search", "photos", "a", "--adapter", LONG],
        ["inspect", LONG],
        ["list", LONG],
        ["pack", "show", LONG],
        ["pack", "init", f"{LONG}.toml"],
        ["generate", "a mug", "-o", f"{LONG}.safetensors"],
    ],
    ids=lambda words: " ".join(word[:12] for word in words),
)
def test_a_path_that_is_none_is_answered(run, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    result = run(*words)
    assert result.exit_code in (2, 3, 4), result.output
    assert result.stderr.splitlines()[-2].startswith("error: ")
    assert result.stderr.splitlines()[-1].startswith("hint: ")
    assert result.stdout == ""
