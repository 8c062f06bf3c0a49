"""Count what a reader ignores by reason, with a few examples, so that nothing is skipped silently."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

_EXAMPLES = 3


@dataclass(frozen=True)
class PassedOver:
    """Files, images or members that a reader ignores for the same reason."""

    reason: str
    """What they are and why they are ignored, such as "files that are not images"."""
    count: int
    examples: tuple[str, ...]
    """The names of the first ones."""

    @property
    def names(self) -> str:
        """The examples on one line, ending with dots if there are more."""
        return ", ".join(self.examples) + (", ..." if self.count > len(self.examples) else "")

    def __str__(self) -> str:
        return f"{self.reason}: {self.count} ({self.names})"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object printed by `--json`."""
        return asdict(self)


def tally(pairs: Iterable[tuple[str, str]]) -> list[PassedOver]:
    """Count (name, reason) pairs of ignored items, one entry per reason, the most common first.

    >>> [str(one) for one in tally([("a.heic", "x"), ("b.txt", "y"), ("c.txt", "y")])]
    ['y: 2 (b.txt, c.txt)', 'x: 1 (a.heic)']
    """
    counts: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    for name, reason in pairs:  # names are not kept, because there may be millions
        counts[reason] = counts.get(reason, 0) + 1
        if len(some := examples.setdefault(reason, [])) < _EXAMPLES:
            some.append(name)
    order = sorted(counts, key=lambda reason: -counts[reason])
    return [PassedOver(reason, counts[reason], tuple(examples[reason])) for reason in order]
