"""One step on a worker of the cluster, and the messages that it sends meanwhile. Workers import this module."""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

from sglora_cli.api import Job, SgloraError, Step, Unavailable, failure_of

Message = tuple[str, str, tuple[Any, ...], dict[str, Any]]
"""("started" | "advance" | "journal", key of the step, positional and named values)"""
_SECONDS = 1.0
"""Time between two deliveries."""


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    node: str
    """Ray's id of the node."""
    error: SgloraError | None = None


class Mailbox:
    """Keeps the workers' messages until the driver takes them. A Ray actor on the driver's node."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def put(self, messages: list[Message]) -> None:
        self._messages += messages

    def take(self) -> list[Message]:
        taken, self._messages = self._messages, []
        return taken


class _Post:
    """Sends the messages of one step, at most once per second."""

    def __init__(self, mailbox: Any, key: str, node: str) -> None:
        self._mailbox, self._key = mailbox, key
        self._waiting: list[Message] = []
        self._units, self._last = 0.0, time.monotonic()
        mailbox.put.remote([("started", key, (node,), {})])

    def advance(self, units: float, part: str) -> None:
        self._units += units
        if self._due():
            self.send(part)

    def journal(self, event: str, **values: Any) -> None:
        self._waiting.append(("journal", self._key, (event,), values))

    def _due(self) -> bool:
        return time.monotonic() - self._last >= _SECONDS

    def send(self, part: str = "") -> Any:
        # All units up to now, so that a second attempt does not count them twice.
        messages, self._waiting = [*self._waiting, ("advance", self._key, (self._units, part), {})], []
        self._last = time.monotonic()
        return self._mailbox.put.remote(messages)


_jobs: dict[str, Job] = {}
"""The last job that this process worked for, under the name of its object."""


def perform(job: list[Any], step: Step, mailbox: Any) -> Outcome:
    """Perform a step of a job. An error is returned, because Ray would wrap an exception.

    job: a list with the reference of the job, because Ray would load a bare reference for every step.
    """
    node = ray.get_runtime_context().get_node_id()
    post = _Post(mailbox, step.key, node)
    try:
        if job[0].hex() not in _jobs:
            _jobs.clear()
            _jobs[job[0].hex()] = _get(job[0])
        _jobs[job[0].hex()].perform(step, post.advance, post.journal)
    except Exception as error:  # a step may raise anything
        return Outcome(node, _for_the_user(error))
    finally:
        with suppress(ray.exceptions.RayError):  # a lost mailbox costs messages, not the step
            _get(post.send())
    return Outcome(node)


def _get(reference: Any) -> Any:
    """Wait for a value. `ray.get` would release the step's resources meanwhile, and Ray would start another worker."""
    return reference.future().result()


def _for_the_user(error: Exception) -> SgloraError:
    if isinstance(error, SgloraError):
        return error
    where = traceback.extract_tb(error.__traceback__)[-1]
    reason = f"{type(error).__name__}: {error} ({where.filename.rpartition('/')[2]}, line {where.lineno})"
    return failure_of(error) or Unavailable(f"the step failed: {reason}", "report this line to the authors of sglora")
