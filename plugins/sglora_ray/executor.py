"""Runs steps as Ray tasks. Ray is imported only if the executor is used."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from sglora_cli.api import Job, Mismatch, Resources, Step, Unavailable, UsageError, offline
from sglora_ray.head import ask

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
        from sglora_ray.run import Run

        return Run(job, steps, advance, journal).all()

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
        if address == "local" and os.environ.get("RAY_AUTH_MODE", "token") == "token" and "ray" not in sys.modules:
            # Ray alone would write a token into the home folder, which clusters started later would then require.
            own = {} if "RAY_AUTH_TOKEN_PATH" in os.environ else {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
            os.environ.update({"RAY_AUTH_MODE": "token", **own} | dict(os.environ))
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
        except (ConnectionError, ray.exceptions.RayError) as error:
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
    """Return the error for a cluster that cannot be joined although its head has answered, or for a missing token."""
    if address in ("auto", "local") and "token" not in reason:
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
