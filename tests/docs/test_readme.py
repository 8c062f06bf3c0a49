"""README: its commands run, its output and numbers are true, it is short, and it names every page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from console import blocks, commands_of, difference, newcomer_in, run
from demo_folder import run_alone, write_demo

from sglora_cli.cli.commands.docs import FOLDER, all_pages

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
LINES = TEXT.splitlines()

SET_UP = (
    'pip install . && sglora generate "a photo of a pug" -o pug.safetensors',
    'pip install ".[test,oracle]" && pytest',
)
MORE = {  # options that save time; test_tutorial.py measures 30 tasks and builds a pack
    "sglora bench --baselines paper,all-but-the-task": "--tasks pug",
    "sglora pack build starter --data DIR": "--limit 2 --dry-run",
}
COMMANDS = [
    shlex.join(shlex.split(line, comments=True)) for line in LINES if line.startswith("    sglora ")
]  # in their order


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory):
    """Exit code and output of every command, in a folder that has what README's readers have."""
    folder = tmp_path_factory.mktemp("readme")
    with newcomer_in(folder):
        (shown,) = [one for block in blocks(README) for one in commands_of(block)]
        outcomes = {"shown": (*run(shown.command), shown)}
        write_demo(folder)
        return outcomes | {command: run_alone(command, MORE.get(command, "")) for command in COMMANDS}


def test_it_begins_with_the_two_commands_that_set_up_and_test():
    assert tuple(line.strip() for line in LINES if line.startswith("    pip ")) == SET_UP


def test_it_shows_six_commands():
    assert len(COMMANDS) == 6
    assert set(MORE) <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command, done):
    code, output = done[command]
    assert code == 0, output


def test_a_shown_output_is_what_is_printed(done):
    code, output, shown = done["shown"]
    assert code == 0
    assert difference(shown, output) == ""


def test_it_is_short():
    assert len(LINES) <= 120
    assert [line for line in LINES if len(line) > 120] == []


def test_it_links_to_every_page():
    linked = set(re.findall(r"\]\((?:sglora_cli/docs|plugins)/(\S+)\.md\)", TEXT))
    assert {"plugins" if name == "README" else name for name in linked} >= set(all_pages()) - {
        "results-generators",
        "results-appendix",
    }


def test_its_results_are_those_of_the_results_page():
    """A row of README has the same method's recalls and gains over zero-shot as the tables of the page."""
    page = (FOLDER / "results.md").read_text(encoding="utf-8")
    directions = [_recalls(page, f"## {title}") for title in ("Text to image", "Image to text")]
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in LINES if re.match(r"\|.*\| \d", line)]
    assert len(rows) == 4
    for name, *shown in rows:
        method = re.split(r",| merge", name)[0].lower()
        assert shown == [value for recalls in directions for value in recalls[method]]
    t2i, i2t = (recalls["oracle"][0] for recalls in directions)
    assert f"(the Oracle) reaches {t2i} and {i2t}" in TEXT
    assert 'all-but-the-task lowers the recall of "photo finds caption" by 2.9 points' in TEXT
    assert "the default costs 2.9 points at image to text" in page


def _recalls(page: str, heading: str) -> dict[str, tuple[str, str]]:
    """The table below a heading: a method's recall, and its gain over zero-shot as README writes it."""
    section = page.split(f"{heading}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {
        name.lower(): (recall, f"{gain} [{ends.replace(' to ', ', ')}]" if gain else "")
        for name, recall, gain, ends, *_ in cells
    }


def test_bold_gains_are_those_that_differ_from_zero():
    gains = re.findall(r"(\*{0,2})[+-][\d.]+ \[([+-][\d.]+), ([+-][\d.]+)\]", TEXT)
    assert len(gains) == 6
    assert all((mark == "**") == (float(low) * float(high) > 0) for mark, low, high in gains)
