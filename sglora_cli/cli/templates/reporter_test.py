"""Tests of the reporter `example`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sglora_cli.api import Report, Row
from sglora_cli.testing import REPORTER_CHECKS

from sglora_example import Example


@pytest.mark.parametrize("check", REPORTER_CHECKS, ids=lambda check: check.__name__)
def test_it_passes_the_conformance_kit(check: Callable[..., None]) -> None:
    check(Example())


def test_a_row_is_a_line() -> None:
    rows = [Row("top-k", "pets", "pug", 0, "I2T", 1, 45.0)]
    text = Example().render(Report("toys", rows, {"top-k": "Top-K"}, {}, "zero-shot"))
    assert text.splitlines()[1] == "top-k\tpets\tpug\t0\tI2T\t1\t45.0"
