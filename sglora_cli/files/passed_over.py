"""What a reader passes over: counted by reason, with a few examples, so that nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

_EXAMPLES = 3


@dataclass(frozen=True)
class PassedOver:
    """Files, images or members that a reader does not take, all for one reason."""

    reason: str
    """What they are, and why they are not taken, as "files that are no images"."""
    count: int
    examples: tuple[str, ...]
    """The names of the first of them."""

    @property
    def names(self) -> str:
        """The examples on one line, with dots where there are more."""
        return ", ".join(self.examples) + (", ..." if self.count > len(self.examples) else "")

    def __str__(self) -> str:
        return f"{self.reason}: {self.count} ({self.names})"

    def to_json(self) -> dict[str, Any]:
        """The values of the table that `--json` prints."""
        return asdict(self)


def tally(pairs: Iterable[tuple[str, str]]) -> list[PassedOver]:
    """(name, reason) of everything that is passed over -> an entry a reason, the most common first.

    >>> [str(one) for one in tally([("a.heic", "x"), ("b.txt", "y"), ("c.txt", "y")])]
    ['y: 2 (b.txt, c.txt)', 'x: 1 (a.heic)']
    """
    counts: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    for name, reason in pairs:  # there may be millions: names are not kept
        counts[reason] = counts.get(reason, 0) + 1
        if len(some := examples.setdefault(reason, [])) < _EXAMPLES:
            some.append(name)
    order = sorted(counts, key=lambda reason: -counts[reason])
    return [PassedOver(reason, counts[reason], tuple(examples[reason])) for reason in order]
