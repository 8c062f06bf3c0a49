"""Tests of the executor `example`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sglora_cli.api import Step
from sglora_cli.testing import EXECUTOR_CHECKS

from sglora_example import Example


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLORA_HOME", str(tmp_path))


@pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
def test_it_passes_the_conformance_kit(check: Callable[..., None]) -> None:
    check(Example())


def test_the_slowest_step_is_in_the_log() -> None:
    class Nothing:
        def perform(self, step: Step, *reports: object) -> None:
            pass

    events: list[str] = []
    steps = [Step("key", "kind", "a step", "work/key")]
    Example().run(Nothing(), steps, lambda *_: None, lambda event, **values: events.append(event))
    assert events == ["slowest"]
