"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "sglora_cli.files.text",
        "sglora_cli.files.untrusted",
        "sglora_cli.data.caption_text",
        "sglora_cli.cli.commands.docs",
        "sglora_cli.bench.retrieval",
        "sglora_cli.bench.rows_file",
        "sglora_cli.lora.prior",
        "sglora_cli.adapter.peft",
        "sglora_cli.generate.session",
        "sglora_cli.cli.output",
        "sglora_cli.cli.scaffold",
        "sglora_cli.bench.ranking",
        "sglora_starter.colours",
    ],
)
def test_examples_are_true(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
