"""A step of a job as a value: what it needs, whether it is done, and what it costs.

Who runs it, and where, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sglora_cli.errors import SgloraError
from sglora_cli.plugin.values import Terms
from sglora_cli.system.progress import size, span

WEIGHTS, DATA, CAPTIONS, PACK, ROWS, PRIOR, REPORT = KINDS = (
    "weights",
    "data",
    "captions",
    "pack",
    "rows",
    "prior",
    "report",
)
DONE, TO_DO, NOT_NEEDED = "done", "to do", "not needed"


@dataclass(frozen=True)
class Step:
    """One step. Its key consists of its kind and name, for example `pack coco`."""

    kind: str
    name: str
    needs: tuple[str, ...] = ()
    """Keys of the steps that come before it."""
    command: str = ""
    """The command that runs the step by hand."""
    done: bool = False
    needed: bool = True
    """Whether a step that is not done needs it."""
    download: int | None = 0
    """Bytes to download; None if unknown."""
    disk: int | None = 0
    """Peak disk space in bytes, including downloads; None if unknown."""
    seconds: tuple[float, float] | None = (0.0, 0.0)
    """Shortest and longest estimated time on this machine, in seconds; None if unknown."""
    why_unknown: str = ""
    """What an unknown time depends on."""
    terms: tuple[Terms, ...] = ()
    """Terms of the downloads."""
    remarks: tuple[str, ...] = ()
    errors: tuple[SgloraError, ...] = ()
    """Problems that no earlier step solves."""

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name}".rstrip()

    @property
    def state(self) -> str:
        return DONE if self.done else TO_DO if self.needed else NOT_NEEDED

    @property
    def left(self) -> bool:
        """Whether it will be run."""
        return not self.done and self.needed

    def cells(self) -> list[str]:
        """The step as a row of a table: step, state, download, disk, time."""
        if not self.left:
            return [self.key, self.state, "", "", ""]
        return [self.key, self.state, _bytes(self.download), _bytes(self.disk), self._time()]

    def _time(self) -> str:
        if self.seconds is None:
            return self.why_unknown or "unknown"
        return span(*self.seconds) if self.seconds[1] else "seconds"

    def to_json(self) -> dict[str, Any]:
        """The step as JSON values."""
        return {
            "step": self.key,
            "kind": self.kind,
            "name": self.name,
            "needs": list(self.needs),
            "command": self.command,
            "state": self.state,
            "download_bytes": self.download if self.left else 0,
            "disk_bytes": self.disk if self.left else 0,
            "seconds_range": [round(one, 1) for one in self.seconds] if self.left and self.seconds else None,
            "terms": [one.to_json() for one in self.terms],
            "remarks": list(self.remarks),
            "missing": [error.to_json()["error"] for error in self.errors],
        }


def _bytes(count: int | None) -> str:
    return "unknown" if count is None else size(count) if count else ""


def with_needed(steps: Sequence[Step]) -> list[Step]:
    """The steps with `needed` set: the last one is, and whatever a step needs that is needed and not done.

    >>> pack, report = Step(PACK, "a", needs=("data a",), done=True), Step(REPORT, "", needs=("pack a",))
    >>> [step.state for step in with_needed([Step(DATA, "a"), pack, report])]
    ['not needed', 'done', 'to do']
    """
    wanted = {steps[-1].key}
    for step in reversed(steps):
        if step.key in wanted and not step.done:
            wanted |= set(step.needs)
    return [replace(step, needed=step.key in wanted) for step in steps]
