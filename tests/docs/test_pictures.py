"""README's pictures show what the program prints today, and what README says about them is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from balloons import write_balloons
from console import Shown, difference
from docs.pictures import (
    BYTES,
    COMMANDS,
    PNG,
    ROOT,
    SENTENCES,
    SVG,
    lines_in,
    session,
    svg_of,
    typed,
    words_in,
    words_of,
)
from terminal import Screen

from sglora_cli.api import Session

RENEW = "run `python -m tests.docs.pictures`"


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Screen], Path]:
    """What the commands show, and the folder in which they ran."""
    folder = tmp_path_factory.mktemp("pictures")
    return session(folder), folder


def compared(shown: list[str], printed: list[str]) -> str:
    return difference(Shown("", tuple(shown), 1, vary=False), "\n".join(printed))


@pytest.mark.slow
def test_the_terminal_shows_what_the_commands_print(today, tmp_path):
    screens, _ = today
    assert [screen.exit_code for screen in screens] == [0, 0, 0]
    again = tmp_path / "terminal.svg"
    again.write_text(svg_of(screens), encoding="utf-8")
    assert compared(lines_in(SVG), lines_in(again)) == "", RENEW


@pytest.mark.slow
def test_the_picture_shows_the_page_that_the_command_writes(today):
    _, folder = today
    page = (folder / "balloon.html").read_text(encoding="utf-8")
    assert compared(words_in(PNG).splitlines(), words_of(page).splitlines()) == "", RENEW


def test_the_terminal_shows_every_line_in_its_width(tmp_path):
    screens = [Screen("one  \x1b[1mtwo\x1b[0m <three>  \n\n", 0), Screen("", 0), Screen("\x1b[2mfour\x1b[0m", 0)]
    path = tmp_path / "terminal.svg"
    path.write_text(svg_of(screens), encoding="utf-8")
    lines = lines_in(path)
    assert [line.removeprefix("$ ").strip(" \\") for line in lines if line.startswith(("$ ", "    "))] == [
        line.strip(" \\") for command in COMMANDS for line in command.splitlines()
    ]
    assert [line for line in lines if not line.startswith(("$ ", "    "))] == ["one  two <three>", "four"]
    assert '<tspan class="bold">two</tspan>&#160;&lt;three&gt;</text>' in path.read_text()
    assert 'textLength="134.4"' in path.read_text()  # 16 characters of 8.4 pixels


def test_words_of_a_page_are_those_that_a_reader_sees():
    assert words_of("<style>a</style><body class='x'>\n<h1>One  two</h1><p>3 &amp;\n4</p>") == "One two\n3 &\n4"


@pytest.mark.parametrize("path", [PNG, SVG], ids=lambda path: path.name)
def test_a_picture_is_small_and_loads_nothing(path):
    assert path.stat().st_size < BYTES
    if path is SVG:
        assert re.findall(r"https?://[^\"]*", path.read_text()) == ["http://www.w3.org/2000/svg"]
        assert "url(" not in path.read_text()
    assert f".github/{path.name}" in (ROOT / "README.md").read_text()


def test_the_numbers_under_the_picture_are_those_of_all_twelve_sentences(tmp_path):
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    (said,) = re.findall(r"Over all twelve, .* is ([\d.]+) without the adapter and ([\d.]+) with it", text)
    assert len(SENTENCES) == 12
    current = Session.open("starter")
    album = current.album(write_balloons(tmp_path / "balloons"), current.generate("a photo of a hot-air balloon"))
    judged = {sentence: album.judge(right, sentence) for sentence, right in SENTENCES.items()}
    assert len(album.photos.paths) == 80
    sides = [one.before for one in judged.values()], [one.after for one in judged.values()]
    means = [sum(one.average_precision for one in side) / len(side) for side in sides]
    assert means == pytest.approx([float(number) for number in said], abs=0.02)
    words = typed(COMMANDS[1])
    assert words[words.index("--text") + 1] == max(judged, key=lambda sentence: judged[sentence].difference)


def test_a_shown_number_that_is_wrong_would_be_seen():
    assert compared(["norm 1.50", "rank 3"], ["norm 1.51", "rank 3"]) == ""
    assert compared(["norm 1.50", "rank 3"], ["norm 1.91", "rank 3"]) != ""
    assert compared(["norm 1.50", "rank 3"], ["norm 1.50", "rank 4"]) != ""
