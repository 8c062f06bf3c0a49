"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "sglora_cli.caption_files",
        "sglora_cli.caption_texts",
        "sglora_cli.documents",
        "sglora_cli.retrieval",
        "sglora_cli.rows_files",
        "sglora_cli.semantics",
        "sglora_cli.formats.peft",
        "sglora_cli.generating",
        "sglora_cli.printing",
        "sglora_cli.templating",
        "sglora_cli.trying",
        "sglora_starter.colours",
    ],
)
def test_examples_are_true(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
