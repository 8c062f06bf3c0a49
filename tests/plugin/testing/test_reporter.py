"""The conformance checks of reporters: built-ins pass, and faults are found."""

from __future__ import annotations

import pytest

from sglora_cli.errors import PluginError
from sglora_cli.testing import check_reporter
from sglora_reports import sglora_reporters


@pytest.mark.parametrize("reporter", sglora_reporters(), ids=lambda one: one.name)
def test_built_in_reporters_pass(reporter):
    check_reporter(reporter)


@pytest.mark.parametrize(
    ("render", "message"),
    [
        (lambda report: "nothing\n", "method 'zero-shot' is missing from the output"),
        (lambda report: "Zero-shot, SG-LoRA", "a string that ends with a line break"),
        (lambda report: f"Zero-shot, SG-LoRA {report.rows[3]}\n", "IndexError"),
    ],
)
def test_a_broken_reporter_is_found(render, message):
    class Odd:
        name = summary = "odd"

        def render(self, report):
            return render(report)

    with pytest.raises(PluginError, match=message):
        check_reporter(Odd())
