"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def with_examples() -> list[str]:
    """Names of the modules of host and plugins that have an example which can be run."""
    paths = [
        path.relative_to(top)
        for top, below in ((ROOT, "sglora_cli"), (ROOT / "plugins", "."))
        for path in (top / below).rglob("*.py")
        if any(">>> " in line and "+SKIP" not in line for line in path.read_text(encoding="utf-8").splitlines())
    ]
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths)


@pytest.mark.parametrize("name", with_examples())
def test_examples_are_true(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
