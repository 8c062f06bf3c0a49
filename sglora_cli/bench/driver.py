"""What the processes of a job have in common.

The process that plans a job and writes its result is the driver. Workers perform the steps. Both use one store, the
user cache, where steps leave their results. Jobs are in `bench/job.py` and `build/job.py`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

import torch

from sglora_cli import __version__
from sglora_cli.config import StepConfig
from sglora_cli.errors import Mismatch, Unavailable, UnknownName
from sglora_cli.files.atomic import write_bytes
from sglora_cli.files.attempts import attempt
from sglora_cli.plugin.executors import LOCAL
from sglora_cli.plugin.values import Resources, Step
from sglora_cli.system.paths import cache_folder

_SHARE = "set SGLORA_HOME to a folder that all machines share, and run the command again"


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
    Raises the errors of `Driver.check`, and Mismatch if this process lacks something that the driver has.
    """
    if driver:
        driver.check()
        with suppress(OSError):  # errors then name the files that are missing
            os.chdir(driver.cwd)
    if step.resources.cpus:
        torch.set_num_threads(step.resources.cpus)
    try:
        with attempt(cache_folder() / step.path, secrets.token_hex(4) if driver else ""):
            yield
    except UnknownName as error:
        if not driver:
            raise
        # The driver has found the name, so the hint of the error would mislead.
        raise Mismatch(
            f"this worker lacks something that the driver has: {error.message}",
            "install the same plugins on every machine",
        ) from None


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
