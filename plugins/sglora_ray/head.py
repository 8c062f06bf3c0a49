"""Whether the head of a cluster answers. Without Ray, which waits for a minute or longer and then ends the process."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field

from sglora_cli.api import Unavailable

_PATIENCE = 5.0
"""Seconds to wait for an answer."""
_LOST = 20.0
"""Seconds without an answer until the head of a running job is lost. Ray ends the process after 60."""
_EVERY, _PAUSE = 5.0, 1.0
"""Seconds between two questions: while the head answers, and while it does not."""
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a connection of HTTP/2 starts, with empty settings. Ray's head answers with its own settings (RFC 9113, 3.4)."""
_SETTINGS = 4


def ask(address: str) -> None:
    """Ask the head at HOST:PORT for an answer. Raises OSError without one, and ValueError for an invalid address."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=_PATIENCE) as connection:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return  # only the cluster's certificates would get an answer
        connection.sendall(_HELLO)
        answer = connection.recv(9, socket.MSG_WAITALL)
        if len(answer) < 9 or answer[3] != _SETTINGS:
            raise OSError("the program that answers there is not Ray")


@dataclass
class Watch:
    """Watches the head while a job runs."""

    address: str
    lost: bool = False
    _asked: float = field(default_factory=time.monotonic)
    _silent: float | None = None
    """Since when it has not answered. Not the time of the last answer, as this process may have been suspended."""

    def check(self) -> None:
        """Ask the head, if the last answer is old. Raises Unavailable if it has not answered for a while."""
        if time.monotonic() - self._asked >= _EVERY:
            self._ask()

    def wait(self) -> None:
        """Return when the head answers. Raises Unavailable if it does not answer for a while."""
        while not self._ask():
            time.sleep(_PAUSE)

    def _ask(self) -> bool:
        try:
            ask(self.address)
        except OSError as error:
            self._silent = self._silent or time.monotonic()
            if time.monotonic() - self._silent >= _LOST:
                self.lost = True
                raise Unavailable(
                    f"the head of the Ray cluster at {self.address} is lost: {error}",
                    "start the cluster again. Finished steps are saved, and the same command resumes after them",
                ) from None
            return False
        else:
            self._silent = None
            return True
        finally:
            self._asked = time.monotonic()
