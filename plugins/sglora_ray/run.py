"""One run of a job: submits its steps to Ray, and attempts those again whose worker is lost."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sglora_cli.api import Job, SgloraError, SgloraWarning, Step, Unavailable
from sglora_ray.head import Watch
from sglora_ray.queue import Queue, at_once
from sglora_ray.worker import Mailbox, Message, Outcome, perform

ATTEMPTS = 4
"""How often a step is attempted if its worker or machine fails. Errors of the step itself are not retried."""
_POLL = 0.5
"""Seconds between two looks at the messages of workers."""
_PATIENCE = 5.0
"""Seconds to wait for these messages, and for the end of cancelled steps."""
_AHEAD = 4
"""Submitted steps for each one that can run. More would slow down the driver, and their files would fill the disk."""
_GROWTH = 10.0
"""Seconds between two looks at the size of the cluster."""


@dataclass
class _Running:
    step: Step
    attempt: int


class Run:
    """One run of a job's steps."""

    def __init__(
        self,
        job: Job,
        steps: Sequence[Step],
        advance: Callable[[float, str], None],
        journal: Callable[..., None],
    ) -> None:
        self._advance, self._journal = advance, journal
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._environment = {"env_vars": _worker_environment()}
        self._mailbox: Any = ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()
        self._perform = ray.remote(perform)
        self._job = [ray.put(job)]
        self._queue = Queue(steps)
        self._sizes = {step.resources for step in steps}
        self._limit, self._looked = 0, -math.inf
        """How many steps may be submitted, and when the size of the cluster was looked at."""
        self._units = dict.fromkeys((step.key for step in steps), 0.0)
        self._running: dict[Any, _Running] = {}
        self._counts: Counter[str] = Counter()
        self._node_of: dict[str, str] = {}
        """Key of a step -> Ray's id of the node where it last started."""
        self._hosts: dict[str, str] = {}
        """Ray's id of each known node -> its host name."""
        self._inbox: Any = None
        """The reference of messages that the mailbox has not delivered yet."""
        self._head = Watch(ray.get_runtime_context().gcs_address)

    def all(self) -> Mapping[str, int]:
        """Run all steps. Returns how many ran on each machine."""
        try:
            while self._queue or self._running:
                self._submit()
                running = list(self._running)
                if ray.wait(running, num_returns=1, timeout=_POLL)[0]:
                    finished = ray.wait(running, num_returns=len(running), timeout=0)[0]
                else:
                    finished = []
                self._head.check()
                self._take_messages()
                for reference in finished:
                    self._finish(reference, self._running.pop(reference))
        finally:
            if not self._head.lost:  # these calls would wait for it
                for reference in self._running:  # a step failed, or the user interrupted the command
                    ray.cancel(reference, force=True)
                if left := list(self._running):  # until their workers are dead and write nothing more
                    ray.wait(left, num_returns=len(left), timeout=_PATIENCE)
                ray.kill(self._mailbox)
        return self._counts

    def _submit(self) -> None:
        """Submit as many steps as the cluster needs for the moment."""
        if time.monotonic() - self._looked >= _GROWTH:
            nodes = [node for node in self._nodes() if node["Alive"]]
            self._limit = _AHEAD * max((1, *(at_once(size, nodes) for size in self._sizes)))
            self._looked = time.monotonic()
        while len(self._running) < self._limit and (step := self._queue.next()):
            self._start(step, 1)

    def _start(self, step: Step, attempt: int) -> None:
        needs = step.resources
        options = {"num_cpus": needs.cpus or 1, "num_gpus": needs.gpus, "name": f"{step.kind} {step.name}"}
        options |= {"memory": needs.memory} if needs.memory else {}
        options |= {"max_retries": 0, "runtime_env": self._environment}
        self._node_of.pop(step.key, None)
        reference = self._perform.options(**options).remote(self._job, step, self._mailbox)
        self._running[reference] = _Running(step, attempt)

    def _take_messages(self) -> None:
        messages: list[Message] = []
        with suppress(ray.exceptions.RayError):  # the mailbox was lost with its messages, and Ray restarts it
            self._inbox = self._inbox or self._mailbox.take.remote()
            if not ray.wait([self._inbox], timeout=_PATIENCE)[0]:
                return
            inbox, self._inbox = self._inbox, None
            messages = ray.get(inbox)
        for kind, key, values, named in messages:
            if kind == "started":
                self._node_of[key] = values[0]
            elif kind == "journal":
                self._journal(*values, **named, machine=self._machine(self._node_of.get(key, "")))
            else:
                self._count(key, *values)

    def _count(self, key: str, units: float, part: str) -> None:
        """Report progress of a step, given its units so far. A second attempt may have fewer than the first one."""
        if units > self._units[key]:
            more, self._units[key] = units - self._units[key], units
            self._advance(more, part)

    def _finish(self, reference: Any, running: _Running) -> None:
        step = running.step
        try:
            outcome: Outcome = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._lost(running, error)
            return
        if outcome.error:
            raise self._with_machine(outcome.error, step, outcome.node)
        self._queue.finish(step)
        self._counts[self._machine(outcome.node)] += 1
        self._count(step.key, step.units, "")

    def _lost(self, running: _Running, error: Exception) -> None:
        """Start a step again whose worker is lost. Raises Unavailable after too many attempts."""
        step, memory = running.step, isinstance(error, ray.exceptions.OutOfMemoryError)
        known = [node["NodeID"] for node in self._nodes() if node["NodeID"] in str(error)]
        machine = self._machine(self._node_of.get(step.key) or "".join(known[:1]))
        reason = "its worker ran out of memory" if memory else f"its worker was lost ({type(error).__name__})"
        self._journal("lost", name=f"{step.kind} {step.name}", machine=machine, reason=reason)
        if running.attempt == ATTEMPTS:
            hints = {
                True: "run fewer steps at once with --cpus-per-step or --memory-per-step, or build with a smaller "
                "tasks_at_once",
                False: "check the machines with `ray status`",
            }
            tried = f"step {step.kind} {step.name!r} was attempted {ATTEMPTS} times"
            raise Unavailable(
                f"{tried}, at last on machine {machine}: {reason}",
                f"{hints[memory]}. Finished steps are saved, and the same command resumes after them",
            )
        which = f"{step.kind} {step.name!r} on machine {machine}"
        warnings.warn(f"step {which}: {reason}, so it is attempted again", SgloraWarning, 2)
        self._start(step, running.attempt + 1)

    def _with_machine(self, error: SgloraError, step: Step, node: str) -> SgloraError:
        """Return the error of a step with the machine in its message."""
        message = f"{error.message} ({step.kind} {step.name!r} on machine {self._machine(node)})"
        return type(error)(message, error.hint, error.parts)

    def _nodes(self) -> list[dict[str, Any]]:
        """Return all nodes, also dead ones. Raises Unavailable without the head."""
        self._head.wait()
        return list(ray.nodes())

    def _machine(self, node: str) -> str:
        """Return the host name of a node, with the start of its id if several nodes have this host name."""
        if node not in self._hosts:
            self._hosts = {one["NodeID"]: one["NodeManagerHostname"] for one in self._nodes()}
        host = self._hosts.get(node, "unknown")
        return f"{host}-{node[:6]}" if list(self._hosts.values()).count(host) > 1 else host


def _worker_environment() -> dict[str, str]:
    """Return the variables that workers need. OMP_NUM_THREADS is set by Ray."""
    own = {name: value for name, value in os.environ.items() if name.startswith("SGLORA_")}
    if home := own.get("SGLORA_HOME"):
        own["SGLORA_HOME"] = str(Path(home).expanduser().absolute())
    return own
