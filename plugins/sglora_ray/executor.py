"""Runs steps as Ray tasks. Ray is imported only if the executor is used."""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.api import Job, Mismatch, Resources, SgloraError, SgloraWarning, Step, Unavailable, UsageError, offline
from sglora_ray.head import Watch, ask
from sglora_ray.queue import Queue

if TYPE_CHECKING:
    from sglora_ray.worker import Message, Outcome

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
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would send statistics over the network
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the next default of Ray, which warns otherwise
}


@dataclass
class Ray:
    """Runs each step as a Ray task. A step whose machine is lost runs again on another one."""

    name: str = "ray"
    summary: str = "all steps on a Ray cluster, or on all cores of this machine (needs the extra ray)"
    address: str = ""
    """HOST:PORT of the head, or "" for RAY_ADDRESS or a new cluster on this machine."""

    def member(self, name: str) -> Ray:
        """Return the executor of the cluster at an address. Raises UsageError for an address that is none."""
        host, _, port = name.rpartition(":")
        if "://" in name:
            raise UsageError(
                f"{name!r} is an address for Ray Client, which has no access to the shared user cache",
                "start the command on a machine of the cluster, and write ray:HOST:6379",
            )
        if name != "auto" and not (host and port.isdecimal() and 0 < int(port) < 65536):
            raise UsageError(
                f"{name!r} is not the address of a Ray cluster", "write ray:HOST:6379, with the head's HOST"
            )
        return Ray(f"ray:{name}", address=name)

    def check(self, resources: Resources) -> None:
        """See Executor."""
        self._connect()
        nodes = _nodes()
        needs = {
            "CPU": (resources.cpus, 1, "CPU"),
            "GPU": (resources.gpus, 1, "GPU"),
            "memory": (resources.memory, 1e9, "GB of memory"),
        }
        for name, (least, unit, noun) in needs.items():
            most = max((node["Resources"].get(name, 0.0) for node in nodes), default=0.0)
            if most < least:
                raise Unavailable(
                    f"each step needs {least / unit:g} {noun}, but no machine of the Ray cluster has more than "
                    f"{most / unit:g}",
                    "pass a smaller --cpus-per-step, --gpus-per-step or --memory-per-step, or add a machine with "
                    "`ray start --address HOST:6379`",
                )

    def run(
        self,
        job: Job,
        steps: Sequence[Step],
        advance: Callable[[float, str], None],
        journal: Callable[..., None],
    ) -> Mapping[str, int]:
        """See Executor."""
        self._connect()
        return _Run(job, steps, advance, journal).all()

    def _connect(self) -> None:
        """Connect this process to the cluster, or start one.

        Raises Unavailable without Ray or a cluster at the address, and Mismatch for a cluster with other versions.
        """
        if find_spec("ray") is None:
            raise Unavailable("executor 'ray' needs Ray, which is not installed", 'pip install "sglora[ray]"')
        if offline():
            raise Unavailable(
                "executor 'ray' uses the network between its processes, but SGLORA_OFFLINE is set",
                "unset SGLORA_OFFLINE; HF_HUB_OFFLINE=1 alone keeps libraries from downloading",
            )
        # Ray alone would also join a cluster that somebody else has started on this machine.
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        if address not in ("auto", "local"):
            _check_reachable(address)
        os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
        if address == "local" and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
            # Ray alone would write a token into the home folder, which clusters started later would then require.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        import ray

        if ray.is_initialized():
            return
        # Ray's messages about lost machines would go to standard output, also with log_to_driver=False.
        ray._private.worker._worker_logs_enabled = False
        try:
            with _own_signals():
                ray.init(
                    address=address,
                    include_dashboard=False if address == "local" else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except ConnectionError as error:
            raise _refused(address, str(error)) from None
        except (RuntimeError, ValueError) as error:
            if "ersion mismatch" in str(error):
                raise Mismatch(
                    f"the Ray cluster at {address} has other versions: {_one_line(error)}",
                    "install the same versions of Python and ray on every machine",
                ) from None
            raise _no_cluster(address, str(error)) from None


def _check_reachable(address: str) -> None:
    try:
        ask(address)
    except (OSError, ValueError) as error:
        raise _no_cluster(address, str(error)) from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which Ray replaces by one that prints a stack and exits."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _no_cluster(address: str, reason: str) -> Unavailable:
    return Unavailable(
        f"no Ray cluster at {address}: {_one_line(reason)}",
        "start one with `ray start --head --port 6379`, or pass --executor ray to use the cores of this machine only",
    )


def _refused(address: str, reason: str) -> Unavailable:
    """Return the error for a cluster that cannot be joined although its head has answered."""
    if address in ("auto", "local"):
        return _no_cluster(address, reason)
    return Unavailable(
        f"the Ray cluster at {address} refuses the connection: {_one_line(reason)}",
        "if it requires a token, copy ~/.ray/auth_token from its head, or set RAY_AUTH_TOKEN, and set "
        "RAY_AUTH_MODE=token",
    )


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())[:300]


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _at_once(size: Resources, nodes: Sequence[Mapping[str, Any]]) -> int:
    """Return how many steps of a size can run at the same time."""
    needs = {"CPU": size.cpus or 1, "GPU": size.gpus, "memory": size.memory}
    return sum(
        min(int(node["Resources"].get(name, 0) / least) for name, least in needs.items() if least) for node in nodes
    )


@dataclass
class _Running:
    step: Step
    attempt: int


class _Run:
    """One run of a job's steps."""

    def __init__(
        self,
        job: Job,
        steps: Sequence[Step],
        advance: Callable[[float, str], None],
        journal: Callable[..., None],
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from sglora_ray.worker import Mailbox, perform

        self._ray, self._advance, self._journal = ray, advance, journal
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
                if self._ray.wait(running, num_returns=1, timeout=_POLL)[0]:
                    finished = self._ray.wait(running, num_returns=len(running), timeout=0)[0]
                else:
                    finished = []
                self._head.check()
                self._take_messages()
                for reference in finished:
                    self._finish(reference, self._running.pop(reference))
        finally:
            if not self._head.lost:  # these calls would wait for it
                for reference in self._running:  # a step failed, or the user interrupted the command
                    self._ray.cancel(reference, force=True)
                if left := list(self._running):  # until their workers are dead and write nothing more
                    self._ray.wait(left, num_returns=len(left), timeout=_PATIENCE)
                self._ray.kill(self._mailbox)
        return self._counts

    def _submit(self) -> None:
        """Submit as many steps as the cluster needs for the moment."""
        if time.monotonic() - self._looked >= _GROWTH:
            nodes = [node for node in self._nodes() if node["Alive"]]
            self._limit = _AHEAD * max((1, *(_at_once(size, nodes) for size in self._sizes)))
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
        with suppress(self._ray.exceptions.RayError):  # the mailbox was lost with its messages, and Ray restarts it
            self._inbox = self._inbox or self._mailbox.take.remote()
            if not self._ray.wait([self._inbox], timeout=_PATIENCE)[0]:
                return
            inbox, self._inbox = self._inbox, None
            messages = self._ray.get(inbox)
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
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._lost(running, error)
            return
        if outcome.error:
            raise self._with_machine(outcome.error, step, outcome.node)
        self._queue.finish(step)
        self._counts[self._machine(outcome.node)] += 1
        self._count(step.key, step.units, "")

    def _lost(self, running: _Running, error: Exception) -> None:
        """Start a step again whose worker is lost. Raises Unavailable after too many attempts."""
        step, memory = running.step, isinstance(error, self._ray.exceptions.OutOfMemoryError)
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
        return list(self._ray.nodes())

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
