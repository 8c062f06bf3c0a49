"""A job for tests of the executor `ray`. Workers import this module."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from sglora_cli.errors import BadFile


@dataclass(frozen=True)
class Failing:
    """Each step fails."""

    how: str

    def perform(self, step, advance, journal):
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "file":
            raise BadFile("pug.jpg is damaged", "replace it")
        raise ZeroDivisionError("a bug")
