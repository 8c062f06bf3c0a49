"""Whether the network may be used: decided here, and refused here.

sglora uses the network only to fetch weights, data sets and packs, and to push packs. SGLORA_OFFLINE=1 forbids it for
the whole process, plugins and libraries included.
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
_OWN_NAMES = (None, "", "localhost", "127.0.0.1", "::1")
"""Names that are resolved without the network. Connections to them are refused too: a proxy may listen there."""
FORBIDDEN = "the network may not be used"
_guarded, _forbidden = False, 0
_PATIENCE = 3.0  # seconds


def offline() -> bool:
    """Whether SGLORA_OFFLINE is set: nothing may use the network then.

    A plugin asks this before it fetches anything, to raise its own error.
    """
    return os.environ.get("SGLORA_OFFLINE", "") not in ("", "0")


def enforce() -> None:
    """Switch off the telemetry of libraries and, offline, restrict them to their caches and refuse all other use.

    Call it before plugins are loaded: libraries read the environment when they are imported. From then on the sockets
    of this process are watched. Other processes and code outside Python are stopped only by the libraries' switches.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not offline():
        return
    os.environ.update(_CACHE_ONLY)
    _guard()


@contextmanager
def no_network() -> Iterator[None]:
    """Refuse the network inside the block, to see what is on this machine."""
    global _forbidden
    _guard()
    _forbidden += 1
    try:
        yield
    finally:
        _forbidden -= 1


def hub_unreachable() -> str:
    """Why the Hugging Face hub cannot be used; "" if it can. Tries a connection, which takes up to 3 seconds."""
    import urllib.request
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    if offline():
        return "SGLORA_OFFLINE is set"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if urllib.request.getproxies():  # a proxy is reached where the hub itself is not
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
    """Watch sockets. An audit hook cannot be removed, so it checks on each call whether the network is forbidden."""
    global _guarded
    if not _guarded:
        sys.addaudithook(_refuse)
        _guarded = True


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Raises Unavailable for a lookup or a connection while the network is forbidden."""
    if not event.startswith("socket.") or not (_forbidden or offline()):
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        where, harmless = arguments[1], getattr(arguments[0], "family", None) in _LOCAL
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        where, harmless = arguments[0], arguments[0] in _OWN_NAMES
    else:
        return
    if harmless:
        return
    why, hint = ("SGLORA_OFFLINE is set", "unset it to allow it") if offline() else ("it is not asked here", "")
    raise Unavailable(f"{FORBIDDEN}, and {where!r} was asked for: {why}", hint)
