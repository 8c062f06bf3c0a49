"""The executor `example`, which runs the steps in this process and names the slowest one."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence

from sglora_cli.api import Job, Resources, Step, hookimpl

SGLORA_API = "1.0"
"""Version of the plugin API this is written for. sglora reports an incompatible version."""


class Example:
    """The executor that `--executor example` selects."""

    name = "example"
    summary = "steps in this process, with the slowest one in the log"

    def check(self, resources: Resources) -> None:
        """Raise Unavailable here if no step with these resources can run."""

    def run(
        self,
        job: Job,
        steps: Sequence[Step],
        advance: Callable[[float, str], None],
        journal: Callable[..., None],
    ) -> Mapping[str, int]:
        """Run the steps in their order, in which each follows the steps that it needs.

        To run them elsewhere, pickle `job` and a step and call `job.perform` there, with the
        same user cache.
        """
        seconds = {}
        for step in steps:
            start = time.monotonic()
            job.perform(step, advance, journal)
            seconds[step.name] = round(time.monotonic() - start, 3)
        if seconds:
            slowest = max(seconds, key=lambda name: seconds[name])
            journal("slowest", name=slowest, seconds=seconds[slowest])
        return {socket.gethostname(): len(steps)}


@hookimpl
def sglora_executors() -> list[Example]:
    return [Example()]
