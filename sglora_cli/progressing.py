"""Progress of long work, on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

_quiet = False
PLAIN_SECONDS = 10.0


def be_quiet(quiet: bool) -> None:
    """Show no progress at all from now on, or show it again."""
    global _quiet
    _quiet = quiet


def progress(items: Sequence[T] | range, what: str) -> Iterable[T]:
    """The items, with their progress shown while they are consumed."""
    if _quiet or len(items) == 0:
        return items  # type: ignore[return-value]
    return _bar(items, what) if sys.stderr.isatty() else _lines(items, what)  # type: ignore[arg-type]


def _bar(items: Sequence[T], what: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track

    yield from track(items, what, console=Console(stderr=True), transient=True)


def _lines(items: Sequence[T], what: str) -> Iterator[T]:
    last = start = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last > PLAIN_SECONDS:
            left = (now - start) / done * (len(items) - done)
            print(f"{what}: {done} of {len(items)}, {left:.0f} s left", file=sys.stderr, flush=True)
            last = now
        yield item
