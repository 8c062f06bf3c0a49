"""Limits of downloads: a least speed, and pauses that grow while connections bring little."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_SPEED, SPEED_SECONDS = 1024, 30.0
"""Bytes per second, on average over so many seconds, below which a connection is given up."""
LEAST_BYTES = 1 << 16
"""Bytes that a connection must bring to count as progress."""


class Pace:
    """The speed of a connection.

    Time counts only between received bytes, so the reader needs a timeout for a server that sends nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._since, self._bytes = clock, clock(), 0

    def received(self, count: int) -> None:
        """Count received bytes. Raises TimeoutError if the connection is too slow."""
        self._bytes += count
        seconds = self._clock() - self._since
        if seconds >= SPEED_SECONDS:
            if self._bytes < LEAST_SPEED * seconds:
                raise TimeoutError(f"only {self._bytes} bytes came in {seconds:.0f} s")
            self._since, self._bytes = self._clock(), 0


class Attempts:
    """The connections of a download, of which `tries` in a row may bring less than LEAST_BYTES.

    seconds: the pause after one that brought more. Each one in a row that brought less doubles it.
    """

    def __init__(self, tries: int, seconds: float) -> None:
        self._tries, self._seconds, self._vain = tries, seconds, 0

    def failed(self, gained: int) -> float | None:
        """Return the seconds to wait before the next connection, or None to give up.

        gained: how many bytes the failed connection brought.

        >>> attempts = Attempts(tries=3, seconds=2.0)
        >>> [attempts.failed(gained) for gained in (1 << 20, 0, 0, 1 << 20, 1, 1, 1)]
        [2.0, 4.0, 8.0, 2.0, 4.0, 8.0, None]
        """
        self._vain = 0 if gained >= LEAST_BYTES else self._vain + 1
        return None if self._vain >= self._tries else self._seconds * 2**self._vain
