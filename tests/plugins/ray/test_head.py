"""Whether the head of a cluster answers, without Ray."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

import pytest

from sglora_cli.errors import Unavailable
from sglora_ray import head
from sglora_ray.head import Watch, ask

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@contextmanager
def server(answer: bytes, connections: int = 1):
    """Address of a server that sends the same bytes on each connection."""

    def serve(listening: socket.socket) -> None:
        for _ in range(connections):
            connection, _ = listening.accept()
            with connection:
                connection.recv(64)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)


def test_other_programs_are_not_ray(monkeypatch):
    with server(SETTINGS) as address:
        ask(address)
    for other in (b"HTTP/1.0 400 Bad request\r\n", b"-ERR\r\n", b""):
        with server(other) as address, pytest.raises(OSError, match="not Ray"):
            ask(address)
    monkeypatch.setenv("RAY_USE_TLS", "1")  # nothing is sent then
    with server(b"") as address:
        ask(address)


def test_a_silent_program_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(head, "_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(TimeoutError):
        ask(f"127.0.0.1:{listening.getsockname()[1]}")


def test_a_head_is_lost_when_it_does_not_answer_for_a_while(monkeypatch):
    monkeypatch.setattr(head, "_EVERY", 0.0)
    monkeypatch.setattr(head, "_PAUSE", 0.01)
    with server(SETTINGS, connections=2) as address:
        watch = Watch(address)
        watch.check()
        watch.wait()
    watch.check()  # not yet lost
    assert not watch.lost
    monkeypatch.setattr(head, "_LOST", 0.05)
    with pytest.raises(Unavailable, match=f"the head of the Ray cluster at {address} is lost: .*refused") as caught:
        watch.wait()
    assert watch.lost
    assert "same command resumes" in caught.value.hint
