"""Jobs for tests of executors. Workers import this module."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from sglora_cli.errors import BadFile
from sglora_cli.files.atomic import write_bytes
from sglora_cli.system.paths import cache_folder


@dataclass(frozen=True)
class Writer:
    """Each step writes the names of the steps that it follows, if their files exist."""

    def perform(self, step, advance, journal):
        before = [key for key in step.after if (cache_folder() / key).exists()]
        write_bytes(cache_folder() / step.path, ",".join(before).encode())
        journal("wrote", key=step.key, threads=os.environ["OMP_NUM_THREADS"])
        advance(step.units, step.name)


@dataclass(frozen=True)
class Failing:
    """The step fails."""

    how: str

    def perform(self, step, advance, journal):
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "file":
            raise BadFile("pug.jpg is damaged", "replace it")
        raise ZeroDivisionError("a bug")
