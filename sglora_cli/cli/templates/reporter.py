"""The reporter `example`, which writes every measured row as tab-separated values."""

from __future__ import annotations

from sglora_cli.api import Report, hookimpl

SGLORA_API = "1.0"
"""Version of the plugin API this is written for. sglora reports an incompatible version."""
COLUMNS = ("method", "dataset", "task", "sample", "direction", "k", "value")


class Example:
    """The reporter that `sglora plugins list` shows."""

    name = "example"
    summary = "every row, tab-separated"

    def render(self, report: Report) -> str:
        """Return a header and one line per row. `report` also has differences of averages, labels and notes."""
        lines = [[str(getattr(row, column)) for column in COLUMNS] for row in report.rows]
        return "".join("\t".join(line) + "\n" for line in [list(COLUMNS), *lines])


@hookimpl
def sglora_reporters() -> list[Example]:
    return [Example()]
