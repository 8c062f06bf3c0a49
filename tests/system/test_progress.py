"""How long it still takes: one number for even work, two for work that changes its pace."""

from __future__ import annotations

import pytest

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
