"""The reporter `example`: every measured row as tab-separated values."""

from __future__ import annotations

from sglora_cli.api import Report, hookimpl

SGLORA_API = "1.0"
"""The plugin API this is written for; sglora says so where it does not fit."""
COLUMNS = ("method", "dataset", "task", "sample", "direction", "k", "value")


class Example:
    """What sglora lists."""

    name = "example"
    summary = "every row, tab-separated"

    def render(self, report: Report) -> str:
        """A header, then a line a row; `report` also has averages' differences, labels and notes."""
        lines = [[str(getattr(row, column)) for column in COLUMNS] for row in report.rows]
        return "".join("\t".join(line) + "\n" for line in [list(COLUMNS), *lines])


@hookimpl
def sglora_reporters() -> list[Example]:
    return [Example()]
