"""Pipes, locales and terminals: the program in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from program import program
from safetensors.torch import load_file

import sglora_cli

SGLORA = f"{sys.executable} -m sglora_cli.cli.main"


def shell(line: str) -> tuple[list[int], bytes]:
    """Exit codes of a pipeline's programs, and what came out on both streams; `sglora` is this program."""
    script = line.replace("sglora ", f"{SGLORA} ", 1) + '; echo "${PIPESTATUS[*]}" >&3'
    done = subprocess.run(
        ["bash", "-c", f"exec 3>codes; {script}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    with open("codes") as codes:
        return list(map(int, codes.read().split())), done.stdout


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = str(Path(sglora_cli.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])))


@pytest.mark.parametrize(
    "line",
    [
        "sglora pack show --json | true",
        "sglora docs reference | true",  # more than a pipe holds
        "sglora --help | true",  # written at once, at the end
        "sglora plugins list | true",
        "sglora pack list 2>&1 | true",
    ],
)
def test_a_pipe_whose_reader_leaves_ends_quietly_with_141(line):
    codes, output = shell(line)
    assert (codes, output) == ([141, 0], b"")


@pytest.mark.parametrize("away", ["2>&1 >/dev/null | true", "2>/dev/full", "2>&1 >/dev/full | true"])
@pytest.mark.parametrize(("command", "code"), [("genrate", 2), ("pack show nope", 3), ("inspect no.safetensors", 4)])
def test_an_error_without_a_reader_keeps_its_exit_code(away, command, code):
    assert shell(f"sglora {command} {away}")[0][0] == code


@pytest.mark.parametrize("away", ["2>&1 >/dev/null | true", "2>/dev/full"])
def test_work_whose_notes_nobody_reads_is_done(tmp_path, away):
    assert shell(f"sglora generate 'a photo of a pug' -o pug.safetensors {away}")[0][0] == 0
    load_file(tmp_path / "pug.safetensors")


def test_who_reads_all_of_it_gets_exit_code_0():
    assert shell("sglora pack list | tail -n 1") == ([0, 0], b"*  starter  starter  36 experts  bundled\n")


@pytest.mark.slow
def test_many_sentences_stop_when_nobody_reads_and_leave_whole_files_only(tmp_path):
    (tmp_path / "many").write_text("".join(f"a photo of {n} dogs\n" for n in range(400)))
    codes, output = shell("sglora -q generate - -o 'made/{n}.safetensors' < many | head -n 1")
    made = sorted((tmp_path / "made").iterdir())
    assert (codes, len(output.splitlines())) == ([141, 0], 1)
    assert 1 <= len(made) < 400
    assert {path.suffix for path in made} == {".safetensors"}
    for path in made:
        load_file(path)  # whole


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_stop_nothing(tmp_path, closed):
    codes, _ = shell(f"sglora generate 'a photo of a pug' -o pug.safetensors {closed}")
    assert codes == [0]
    load_file(tmp_path / "pug.safetensors")
    assert shell(f"sglora pack show nope {closed}")[0] == [3]


def test_notes_do_not_go_among_results_where_standard_error_is_closed():
    assert shell("sglora generate 'a photo of a pug' -o pug.safetensors 2>&-") == ([0], b"pug.safetensors\n")


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
