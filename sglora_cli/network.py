"""Whether the network may be used: decided here, and refused here.

Nothing of sglora uses the network but what fetches weights and data sets. SGLORA_OFFLINE=1 forbids it to everybody in
the process, plugins and libraries included.
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
"""Looked up without asking anybody. Connections to them are refused as well: a proxy may listen there."""
_guarded, _forbidden = False, 0
_PATIENCE = 3.0  # seconds


def offline() -> bool:
    """Whether SGLORA_OFFLINE is set: nothing may use the network then.

    A plugin asks this before it fetches anything, to say so in its own words.
    """
    return os.environ.get("SGLORA_OFFLINE", "") not in ("", "0")


def enforce() -> None:
    """Tell libraries to report nothing to anybody and, offline, to ask their caches only; refuse all other use.

    Call it before plugins are loaded: libraries read the environment when they are imported. Sockets of this process
    are watched from then on; what a library does in another process or outside Python only its own switch stops.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not offline():
        return
    os.environ.update(_CACHE_ONLY)
    _guard()


@contextmanager
def no_network() -> Iterator[None]:
    """The network is refused inside, whatever is set: to look what is on this machine."""
    global _forbidden
    _guard()
    _forbidden += 1
    try:
        yield
    finally:
        _forbidden -= 1


def hub_unreachable() -> str:
    """Why the Hugging Face hub is not asked; "" if it is, which takes a moment: a connection is tried."""
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
    except OSError:
        return f"{address.hostname} cannot be reached"
    return ""


def _guard() -> None:
    """Watch sockets: a hook that Python never takes back, so it asks each time whether it is meant."""
    global _guarded
    if not _guarded:
        sys.addaudithook(_refuse)
        _guarded = True


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Raises Unavailable for a name looked up or a connection made that may not be."""
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
    raise Unavailable(f"the network may not be used, and {where!r} was asked for: {why}", hint)
