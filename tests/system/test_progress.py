"""How long it still takes: one number for even work, two for work that changes its pace."""

from __future__ import annotations

import sys

import pytest

from sglora_cli.system import progress
from sglora_cli.system.progress import TimeLeft


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def said(total: float, seconds: list[float]) -> list[str]:
    """After each unit, which took so long."""
    clock = Clock()
    left, texts = TimeLeft(total, clock), []
    for one in seconds:
        clock.now += one
        texts.append(left.after(1))
    return texts


def test_even_work_has_one_number():
    assert said(10, [2.0] * 10)[1:] == [
        "16 s left",
        "14 s left",
        "12 s left",
        "10 s left",
        *[f"{n} s left" for n in (8, 6, 4, 2, 0)],
    ]


def test_nothing_is_said_before_anything_is_known():
    assert said(10, [2.0]) == [""]
    clock = Clock()
    assert TimeLeft(5, clock).after(0) == ""


@pytest.mark.parametrize("seconds", [[1.0] * 6 + [5.0] * 4, [5.0] * 6 + [1.0] * 4])
def test_the_truth_lies_between_if_the_new_pace_lasts_or_the_old_one_returns(seconds):
    text = said(20, seconds)[-1]
    low, high = (float(part) for part in text.removesuffix(" s left").split(" to "))
    mean, last = sum(seconds) / 10, seconds[-1]
    assert (low, high) == tuple(sorted((round(10 * mean), 10 * last)))


def test_a_name_is_neither_markup_nor_a_command_of_the_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress.working("tasks [/x] \x1b[2J", 2) as advance:
        advance(1, "[/y] \x1b[3J")
    shown = capsys.readouterr().err
    assert "\x1b[2J" not in shown
    assert "\x1b[3J" not in shown


def test_a_note_is_one_line(capsys):
    progress.remark("a\x1b[2Jb\nc")
    assert capsys.readouterr().err == "a\\x1b[2Jb\\nc\n"
