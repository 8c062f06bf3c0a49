"""The executor that is always there, and what the processes of any other executor have in common. No torch import.

The process that plans a job and writes its result is the driver. Workers perform the steps. Both use one store, the
user cache, where steps leave their results.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from sglora_cli import __version__
from sglora_cli.config import StepConfig
from sglora_cli.errors import Mismatch, Unavailable
from sglora_cli.files.atomic import write_bytes
from sglora_cli.files.attempts import attempt
from sglora_cli.plugin.contracts import Job
from sglora_cli.plugin.values import Resources, Step
from sglora_cli.system.paths import cache_folder

LOCAL = "local"
_SHARE = "set SGLORA_HOME to a folder that all machines share, and run the command again"


@dataclass
class InProcess:
    """Runs steps in this process, in their order."""

    name: str = LOCAL
    summary: str = "one step after the other, in this process"

    def check(self, resources: Resources) -> None:
        """See Executor."""

    def run(
        self,
        job: Job,
        steps: Sequence[Step],
        advance: Callable[[float, str], None],
        journal: Callable[..., None],
    ) -> Mapping[str, int]:
        """See Executor."""
        for step in steps:
            job.perform(step, advance, journal)
        return {socket.gethostname(): len(steps)} if steps else {}


@dataclass(frozen=True)
class Driver:
    """The process that drives a job, as its workers know it."""

    versions: Mapping[str, str]
    store: str
    """The user cache of the driver."""
    cwd: str
    """The working folder of the driver, where its relative paths begin."""
    token: str
    """A file in the store, relative to it, which exists while the driver runs."""

    @classmethod
    @contextmanager
    def here(cls) -> Iterator[Driver]:
        """Yield this process as a driver."""
        token = f"work/driver-{secrets.token_hex(8)}.token"
        path = cache_folder() / token
        write_bytes(path, b"")
        try:
            yield cls(_versions(), str(cache_folder()), os.getcwd(), token)
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
                f"the driver uses the store {self.store}, which this worker does not see: its own is {cache_folder()}",
                _SHARE,
            )


def resources_of(config: StepConfig, executor: str, device: str) -> Resources:
    """Return the resources of each step of a job.

    device: type of the driver's device.
    """
    if executor == LOCAL:
        return Resources(config.cpus_per_step)
    gpus = 0.0 if device == "cpu" else config.gpus_per_step or 1.0
    return Resources(config.cpus_per_step or 1, gpus, int(config.memory_per_step * 1e9))


@contextmanager
def performing(step: Step, driver: Driver | None) -> Iterator[None]:
    """Prepare this process for one step.

    driver: the process that the step is performed for, or None for the driver itself.
    Raises the errors of `Driver.check`.
    """
    if driver:
        driver.check()
        with suppress(OSError):  # errors then name the files that are missing
            os.chdir(driver.cwd)
    if step.resources.cpus:
        import torch

        torch.set_num_threads(step.resources.cpus)
    with attempt(cache_folder() / step.path, secrets.token_hex(4) if driver else ""):
        yield


@cache
def _versions() -> Mapping[str, str]:
    return {"sglora": __version__, "torch": version("torch")}


def check_results(steps: Sequence[Step], executor: str, counts: Mapping[str, int]) -> None:
    """Raise Unavailable for a step whose result is not visible to the driver."""
    for step in steps:
        if not (cache_folder() / step.path).exists():
            raise Unavailable(
                f"executor {executor!r} performed step {step.kind} {step.name!r}, but {step.path} is not in "
                f"{os.fspath(cache_folder())} (machines: {', '.join(sorted(counts)) or 'none'})",
                _SHARE,
            )


def summary(counts: Mapping[str, int]) -> str:
    """Return where steps ran, as text.

    >>> summary({"b": 3, "a": 12})
    '12 on a, 3 on b'
    """
    return ", ".join(f"{count} on {machine}" for machine, count in sorted(counts.items()))
