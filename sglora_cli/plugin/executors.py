"""The executor that is always there. No torch import."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sglora_cli.plugin.contracts import Job
from sglora_cli.plugin.values import Resources, Step

LOCAL = "local"


@dataclass
class InProcess:
    """Runs steps in this process, in their order."""

    name: str = LOCAL
    summary: str = "one step after the other, in this process"

    def check(self, resources: Resources) -> None:
        """See Executor."""

    def run(
        self,
        job: Job,
        steps: Sequence[Step],
        advance: Callable[[float, str], None],
        journal: Callable[..., None],
    ) -> Mapping[str, int]:
        """See Executor."""
        for step in steps:
            job.perform(step, advance, journal)
        return {socket.gethostname(): len(steps)} if steps else {}
