"""Limits of downloads: a minimum speed, and growing pauses between connections that transfer little."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_SPEED, SPEED_SECONDS = 1024, 30.0
"""A connection is closed if its average over SPEED_SECONDS is below LEAST_SPEED bytes per second."""
LEAST_BYTES = 1 << 16
"""Bytes that a connection must transfer to count as progress."""


class Pace:
    """Measures the speed of a connection.

    It is checked only when bytes arrive, so the reader needs a timeout for a server that sends nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._since, self._bytes = clock, clock(), 0

    def received(self, count: int) -> None:
        """Count received bytes. Raises TimeoutError if the connection is too slow."""
        self._bytes += count
        seconds = self._clock() - self._since
        if seconds >= SPEED_SECONDS:
            if self._bytes < LEAST_SPEED * seconds:
                raise TimeoutError(f"only {self._bytes} bytes arrived in {seconds:.0f} s")
            self._since, self._bytes = self._clock(), 0


class Attempts:
    """Counts the connections of a download. It gives up after `tries` in a row with less than LEAST_BYTES each.

    seconds: the pause after a connection that transferred more. Each connection in a row with less doubles it.
    """

    def __init__(self, tries: int, seconds: float) -> None:
        self._tries, self._seconds, self._vain = tries, seconds, 0

    def failed(self, gained: int) -> float | None:
        """Return the seconds to wait before the next connection, or None to give up.

        gained: bytes that the failed connection transferred.

        >>> attempts = Attempts(tries=3, seconds=2.0)
        >>> [attempts.failed(gained) for gained in (1 << 20, 0, 0, 1 << 20, 1, 1, 1)]
        [2.0, 4.0, 8.0, 2.0, 4.0, 8.0, None]
        """
        self._vain = 0 if gained >= LEAST_BYTES else self._vain + 1
        return None if self._vain >= self._tries else self._seconds * 2**self._vain
