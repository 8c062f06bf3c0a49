"""What commands share: the host, loaded when it is first needed, and checks of their options."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.cli.output import say
from sglora_cli.errors import UsageError

if TYPE_CHECKING:
    from sglora_cli.pack.library import Library
    from sglora_cli.plugin.host import Host


class App:
    """What commands share: the host and the library of packs, loaded when they are first needed."""

    @cached_property
    def host(self) -> Host:
        from sglora_cli.plugin.host import Host

        host = Host.load()
        for problem in host.problems:
            say(f"warning: plugin {problem.plugin!r} is broken: {problem.reason} ({problem.hint})")
        return host

    @cached_property
    def library(self) -> Library:
        from sglora_cli.pack.library import Library

        return Library(self.host.recipe_folders)


def check_page_name(report: Path | None) -> None:
    """Raises UsageError for a page that is not called .html."""
    if report and report.suffix != ".html":
        raise UsageError(f"a report is written as .html, got {report}", f"try --report {report.with_suffix('.html')}")
