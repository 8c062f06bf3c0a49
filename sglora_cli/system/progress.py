"""Progress of long work, as a bar or lines on standard error, and the log file of a job."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sglora_cli.errors import unwritable
from sglora_cli.files.escape import printable
from sglora_cli.files.text import append_lines

T = TypeVar("T")

Advance = Callable[[float, str], None]
"""Called with the completed units of work and a description of the current part."""

Record = Callable[..., None]
"""Called with a step and its values: a Journal, or what stands for one in another process."""

_quiet = False
_remarked: set[str] = set()
PLAIN_SECONDS = 10.0


def be_quiet() -> None:
    """Suppress progress and notes from now on."""
    global _quiet
    _quiet = True


def be_heard() -> None:
    """Show progress and notes again."""
    global _quiet
    _quiet = False
    _remarked.clear()


def is_quiet() -> bool:
    return _quiet


def remark(text: str, once: bool = False) -> None:
    """Print a note to stderr unless notes are suppressed. With `once`, print it only the first time."""
    if not (_quiet or (once and text in _remarked)):
        _remarked.add(text)
        print(printable(text), file=sys.stderr, flush=True)


def progress(items: Sequence[T] | range, what: str) -> Iterable[T]:
    """Return the items, and display progress while they are consumed."""
    if _quiet or len(items) == 0:
        return items  # type: ignore[return-value]
    return _displayed(items, what)  # type: ignore[arg-type]


def _displayed(items: Sequence[T], what: str) -> Iterator[T]:
    with working(what, len(items)) as advance:
        for item in items:
            yield item
            advance(1, "")


@contextmanager
def working(what: str, total: float) -> Iterator[Advance]:
    """Display the progress of `total` units of work and the time left. Yields a function to report completed units."""
    if _quiet or total <= 0:
        yield lambda units, part: None
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),  # [/x] may be the name of a task
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
        )
        time_left, what = TimeLeft(total), printable(what)
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task(what, total=total, left="")

            def advance(units: float, part: str) -> None:
                left = time_left.after(units)
                bars.update(bar, advance=units, description=f"{what} {printable(part)}".strip(), left=left)

            yield advance
    else:
        yield _Lines(what, total).advance


class TimeLeft:
    """Estimates the time left as a range, from the mean speed and the speed of the recent part.

    Steady work has a single number. Work that changes speed or waits for other programs has a range.
    """

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total, clock
        self._points = [(clock(), 0.0)]
        """Times, with the units completed by then."""

    def after(self, units: float) -> str:
        """Return the estimate after `units` more units are complete, or "" while it is unknown."""
        now, done = self._clock(), self._points[-1][1] + units
        self._points.append((now, done))
        if len(self._points) < _FEWEST or done <= 0:
            return ""
        recent = next(point for point in self._points if point[1] >= _RECENT * done)
        paces = [(now - start) / (done - before) for start, before in (self._points[0], recent) if done > before]
        left = [max(0.0, self._total - done) * pace for pace in paces]
        return f"{span(min(left), max(left))} left"

    @property
    def done(self) -> float:
        return self._points[-1][1]


_FEWEST, _RECENT = 3, 0.6
"""Minimum number of points for an estimate, and the share of completed work after which work counts as recent."""


class _Lines:
    def __init__(self, what: str, total: float) -> None:
        self.what, self.total, self.time_left = what, total, TimeLeft(total)
        self.last = time.monotonic()

    def advance(self, units: float, part: str) -> None:
        left, now = self.time_left.after(units), time.monotonic()
        if now - self.last > PLAIN_SECONDS and self.time_left.done < self.total:
            percent = 100 * self.time_left.done / self.total
            remark(", ".join(filter(None, [f"{f'{self.what} {part}'.strip()}: {percent:.0f} %", left])))
            self.last = now


def duration(seconds: float) -> str:
    """
    >>> duration(7.2), duration(95), duration(5400), duration(1e6)
    ('7 s', '2 min', '1.5 h', '12 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 86400:.0f} days"


def span(least: float, most: float) -> str:
    """
    >>> span(7.2, 7.4), span(7.2, 12), span(95, 130), span(60, 5400)
    ('7 s', '7 to 12 s', '2 min', '60 s to 1.5 h')
    """
    low, high = duration(least), duration(most)
    if low == high:
        return low
    number, _, unit = low.partition(" ")
    return f"{number} to {high}" if high.endswith(f" {unit}") else f"{low} to {high}"


def size(count: float) -> str:
    """
    >>> size(999), size(1_234_567), size(2.5e10)
    ('999 B', '1.2 MB', '25.0 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


class Journal:
    """A log of JSON lines with time (UTC), step and values, written to a file or discarded."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __call__(self, step: str, **facts: Any) -> None:
        if self.path is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            append_lines(self.path, [json.dumps({"time": now, "step": step, **facts}, ensure_ascii=False) + "\n"])
        except OSError as error:
            raise unwritable(f"cannot write the log {self.path}", error, "choose another file with --log") from None
