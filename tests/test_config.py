"""Lists of names that a user chooses from."""

from __future__ import annotations

from sglora_cli import config
from sglora_cli.adapter import write
from sglora_cli.system import hardware


def test_closed_lists_have_every_name_that_there_is():
    assert list(config.ADAPTER_FORMATS) == list(write.FORMATS)
    assert ("auto", *hardware.PRECISIONS) == config.PRECISIONS
