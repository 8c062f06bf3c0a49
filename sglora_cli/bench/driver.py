"""What a worker must have in common with the process that drives a job: versions, and the store.

The store is the user cache. Steps leave their results there, so the worker must see the driver's folder.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from sglora_cli import __version__
from sglora_cli.errors import Mismatch, Unavailable
from sglora_cli.files.atomic import write_bytes
from sglora_cli.plugin.executors import LOCAL
from sglora_cli.plugin.values import Step
from sglora_cli.system.paths import cache_folder


@dataclass(frozen=True)
class Driver:
    """The process that drives a job, as its workers must know it."""

    versions: Mapping[str, str]
    store: str
    """The user cache of the driver."""
    token: str
    """A file in the store, relative to it."""
    pid: int

    @classmethod
    @contextmanager
    def here(cls) -> Iterator[Driver]:
        """Yield this process as a driver. The token exists during the block."""
        token = f"work/store-{secrets.token_hex(8)}.token"
        path = cache_folder() / token
        write_bytes(path, b"")
        try:
            yield cls(_versions(), str(cache_folder()), token, os.getpid())
        finally:
            path.unlink(missing_ok=True)

    def check(self) -> None:
        """Check that this process can work for the driver.

        Raises Mismatch for another version of sglora or torch, and Unavailable if the store is not visible.
        """
        for name, theirs in self.versions.items():
            if (ours := _versions()[name]) != theirs:
                raise Mismatch(
                    f"this worker has {name} {ours}, and the driver has {theirs}",
                    f"install {name} {theirs} on every machine",
                )
        if not (cache_folder() / self.token).exists():
            raise Unavailable(
                f"this worker does not see the driver's store {self.store}: its own is {cache_folder()}",
                "set SGLORA_HOME to a folder that all machines share",
            )


@cache
def _versions() -> Mapping[str, str]:
    return {"sglora": __version__, "torch": version("torch")}


def check_results(steps: Sequence[Step], executor: str, counts: Mapping[str, int]) -> None:
    """Raise Unavailable for a step whose result an executor has left somewhere else."""
    if executor == LOCAL:
        return
    for step in steps:
        if not (cache_folder() / step.path).exists():
            machines = ", ".join(sorted(counts))
            raise Unavailable(
                f"executor {executor!r} performed step {step.kind} {step.name!r}, but {step.path} is not in "
                f"{cache_folder()} (machines: {machines})",
                "set SGLORA_HOME to a folder that all machines share, and run the command again",
            )


def summary(counts: Mapping[str, int]) -> str:
    """Return where steps ran, as text.

    >>> summary({"b": 3, "a": 12})
    '12 on a, 3 on b'
    """
    return ", ".join(f"{count} on {machine}" for machine, count in sorted(counts.items()))


def absolute(path: Path) -> Path:
    """Return a path that means the same in another process."""
    return Path(os.path.abspath(path))
