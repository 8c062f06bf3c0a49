"""Decides whether the network may be used, and blocks it otherwise.

sglora uses the network only to download weights, data sets and packs, and to upload packs. SGLORA_OFFLINE=1 forbids it
for the whole process, including plugins and libraries.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sglora_cli.errors import Unavailable

_QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
_CACHE_ONLY = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_LOCAL = {getattr(socket, name) for name in ("AF_UNIX",) if hasattr(socket, name)}
_HARMLESS = {"socket.gethostname", "socket.getservbyname", "socket.getservbyport"}
"""Audit events that ask only this machine. All others are refused, also those of future versions of Python."""
_OWN_NAMES = (None, "", "localhost", "127.0.0.1", "::1")
"""Names that resolve without the network. Connections to them are blocked too, because a proxy may listen there."""
FORBIDDEN = "the network may not be used"
_guarded, _forbidden, _enforced = False, 0, False
_PATIENCE = 3.0  # seconds


def offline() -> bool:
    """Return whether SGLORA_OFFLINE is set, or was set at `enforce`, so that nothing may use the network.

    A plugin calls this before it fetches anything, so that it can raise its own error.
    """
    return _enforced or os.environ.get("SGLORA_OFFLINE", "") not in ("", "0")


def enforce() -> None:
    """Disable the telemetry of libraries. If offline, also restrict them to their caches and block all other use.

    Call it before plugins are loaded, because libraries read the environment when they are imported. From then on an
    audit hook watches the sockets of this process, even if the variable is removed. Only the libraries' own switches
    stop child processes and native code.
    """
    global _enforced
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not offline():
        return
    os.environ.update(_CACHE_ONLY)
    _enforced = True
    _guard()


@contextmanager
def no_network() -> Iterator[None]:
    """Block the network inside the `with` block, to find out what is already on this machine."""
    global _forbidden
    _guard()
    _forbidden += 1
    try:
        yield
    finally:
        _forbidden -= 1


def hub_unreachable() -> str:
    """Return why the Hugging Face hub cannot be used, or "". It tries to connect, which takes up to 3 seconds."""
    import urllib.request
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    if offline():
        return "SGLORA_OFFLINE is set"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if urllib.request.getproxies():  # a proxy may be reachable when the hub itself is not
        return ""
    address = urlsplit(constants.ENDPOINT)
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname, port), timeout=_PATIENCE).close()
    except socket.gaierror:
        return f"the name {address.hostname} does not resolve"
    except OSError:
        return f"{address.hostname} cannot be reached"
    return ""


def _guard() -> None:
    """Watch sockets with an audit hook, which cannot be removed and so checks on each call if it must block."""
    global _guarded
    if not _guarded:
        sys.addaudithook(_refuse)
        _guarded = True


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise Unavailable for any use of sockets while the network is forbidden, except between local processes."""
    if not event.startswith("socket.") or not (_forbidden or offline()) or event in _HARMLESS:
        return
    where: Any = event
    if event in ("socket.__new__", "socket.bind") and not offline():
        return  # urllib3 asks once, when it is imported, whether a socket of IPv6 can be bound, and keeps the answer
    if event == "socket.__new__":  # a socket that cannot be made cannot listen or join a group either
        if arguments[1] in _LOCAL or arguments[1] == -1:  # -1: of a file descriptor that is open already
            return
        where = next((family.name for family in socket.AddressFamily if family == arguments[1]), arguments[1])
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
        if getattr(arguments[0], "family", None) in _LOCAL:
            return
        where = arguments[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        if arguments[0] in _OWN_NAMES:
            return
        where = arguments[0]
    why, hint = ("SGLORA_OFFLINE is set", "unset SGLORA_OFFLINE") if offline() else ("this step must not use it", "")
    raise Unavailable(f"{FORBIDDEN}, but {where!r} was requested: {why}", hint)
