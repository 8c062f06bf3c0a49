"""Pipes, locales and terminals: the program in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from program import program


def test_who_reads_the_first_line_only_hears_no_complaint():
    command = f"{sys.executable} -m sglora_cli.cli.main pack show --json | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"{\n", b"")


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "/katze-猫".encode()),  # click's choice
        ({"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}, rb"/katze-\u732b"),
    ],
)
def test_a_terminal_without_letters_stops_nothing(own_home, environment, folder):
    (own_home / "settings.toml").write_text('data = "/katze-猫"\n', encoding="utf-8")
    done = program("settings", **environment)
    assert done.returncode == 0
    assert folder in done.stdout


@pytest.mark.parametrize("arguments", [["pack", "list"], ["settings"], ["plugins", "list"], ["cache", "info"]])
def test_piped_output_has_no_escapes_and_cuts_nothing(arguments):
    done = program(*arguments, COLUMNS="20", FORCE_COLOR="1")
    assert b"\x1b" not in done.stdout + done.stderr
    assert "…" not in done.stdout.decode()


def test_a_sentence_survives_a_locale_without_its_letters(tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = program("generate", "ein Mops aus Köln", "-o", tmp_path / "a.safetensors", "--json", **ascii_only)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["about"]["description"] == "ein Mops aus Köln"
