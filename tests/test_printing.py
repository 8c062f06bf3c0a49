"""Tables on a terminal show cells as they are."""

from __future__ import annotations

import sys

from sglora_cli.printing import print_rows


def test_square_brackets_are_text_and_no_markup(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_rows(("name",), [["[/x] a"], ["[bold]b"]])
    shown = capsys.readouterr().out
    assert "[/x] a" in shown
    assert "[bold]b" in shown
