"""The tutorial, from its first command to its last: each runs, and prints what the page shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from console import Shown, difference, newcomer_in, run_steps, steps_of

from sglora_cli.cli.commands.docs import FOLDER

PAGE = FOLDER / "tutorial.md"
STEPS = steps_of(PAGE)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory):
    """Exit code and output of every step, run in an empty folder and with a cache of its own."""
    folder = tmp_path_factory.mktemp("tutorial")
    with newcomer_in(folder):
        return run_steps(PAGE)


@pytest.mark.parametrize("one", STEPS, ids=lambda one: f"line {one.number}: {one.command[:60]}")
def test_a_step_prints_what_the_page_shows(one, done):
    code, output = done[one.number]
    assert difference(one, output) == ""
    assert (code != 0) == any(line.startswith("error:") for line in one.output)


def test_what_a_page_shows_is_compared():
    """The comparison itself: words and whole numbers must be equal, decimals close, `...` may be anything."""
    one = Shown("x", ("3 files in ...", "...", "norm 1.50 of 2"), 1, vary=False)
    assert difference(one, "3 files in /a\nb\nc: 50 %, 3 s left\nnorm 1.51 of 2\n") == ""
    assert difference(one, "3 files in /a\nnorm 1.9 of 2\n") == "1.50 on the page, 1.9 printed"
    assert "and it prints" in difference(one, "4 files in /a\nnorm 1.5 of 2\n")
    assert difference(replace(one, vary=True), "3 files in /a\nnorm 7.0 of 9\n") == ""
    assert "and it prints" in difference(replace(one, vary=True), "3 files in /a\nform 1.5 of 2\n")
