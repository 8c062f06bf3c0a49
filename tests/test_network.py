"""The network: nobody uses it unasked, and with SGLORA_OFFLINE=1 nobody can."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from distributions import install

from sglora_cli import network
from sglora_cli.errors import Unavailable
from sglora_cli.plugin.host import Host

SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")


@pytest.fixture(autouse=True)
def own_switches(monkeypatch):
    """What enforce() sets for libraries ends with the test."""
    for name in SWITCHES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def sealed(monkeypatch):
    """Whoever looks up a name or connects is named."""
    asked = []

    def refuse(*arguments, **more):
        asked.append(arguments)
        raise OSError("no network in this test")

    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return asked


@pytest.mark.parametrize("switch", ["", "1"])
def test_no_command_on_the_starter_asks_anybody(run, sealed, switch, monkeypatch, tmp_path, images):
    monkeypatch.setenv("SGLORA_OFFLINE", switch)
    pug, file = tmp_path / "pug.safetensors", tmp_path / "s.zip"
    for arguments in (
        ("generate", "a photo of a pug", "-o", pug, "--explain"),
        ("inspect", pug),
        ("diff", pug, pug),
        ("try", pug, "--images", images, "--report", tmp_path / "try.html"),
        ("export", pug, "-o", tmp_path / "peft"),
        ("import", tmp_path / "peft", "-o", tmp_path / "back.safetensors"),
        ("bench", "--baselines", "top-k,cvae", "--tasks", "pets/pug", "--rows", tmp_path / "rows.jsonl"),
        ("report", tmp_path / "rows.jsonl"),
        ("pack", "list"),
        ("pack", "show"),
        ("pack", "verify"),
        ("pack", "export", "starter", "-o", file),
        ("pack", "import", file, "--name", "again"),
        ("pack", "recipes"),
        ("pack", "remove", "again", "--yes"),
        ("data", "list"),
        ("plugins", "list"),
        ("plugins", "doctor"),
        ("settings",),
        ("cache", "info"),
        ("doctor",),
    ):
        result = run(*arguments)
        assert result.exit_code == 0, (arguments, result.output)
        assert sealed == [], arguments


def test_absent_weights_offline_say_what_to_do(run, sealed, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    result = run("plugins", "check", "clip-vit-b-16")
    assert result.exit_code == 6
    assert "SGLORA_OFFLINE is set\nhint: pass --weights FILE" in result.stderr
    assert sealed == []


def test_a_strangers_plugin_cannot_use_the_network_either(run, site, monkeypatch):
    source = (
        "import urllib.request\nfrom sglora_cli.api import hookimpl\n"
        "class Nosy:\n    name, summary = 'nosy', 'asks home'\n"
        "    def load(self, runtime): urllib.request.urlopen('http://192.0.2.1/')\n"
        "@hookimpl\ndef sglora_backbones(): return [Nosy()]\n"
    )
    install(site, "nosy", "nosy", source)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    result = run("plugins", "check", "nosy")
    assert result.exit_code == 6
    assert "the network may not be used" in result.stderr
    assert "SGLORA_OFFLINE is set" in result.stderr
    sys.modules.pop("nosy", None)


def test_sockets_are_refused_and_given_back(monkeypatch):
    stream, datagram = (socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))
    with stream, datagram, network.no_network():
        for use in (
            lambda: stream.connect(("192.0.2.1", 80)),
            lambda: socket.getaddrinfo("example.org", 80),
            lambda: datagram.sendto(b"x", ("192.0.2.1", 9)),
        ):
            with pytest.raises(Unavailable, match="the network may not be used"):
                use()
        one, other = socket.socketpair()  # processes of one machine may talk
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        one.close()
        other.close()
    listening = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(listening.getsockname()).close()
    with socket.socket() as again:
        monkeypatch.setenv("SGLORA_OFFLINE", "1")
        with pytest.raises(Unavailable, match="SGLORA_OFFLINE is set"):
            again.connect(listening.getsockname())
    listening.close()


USES = {
    "a name's address": lambda _: socket.gethostbyname("example.org"),
    "an address's name": lambda _: socket.getnameinfo(("192.0.2.1", 80), 0),
    "the name of a host": lambda _: socket.gethostbyaddr("192.0.2.1"),
    "a new socket": lambda _: socket.socket(),
    "a server": lambda _: socket.create_server(("127.0.0.1", 0)),
    "a place to listen": lambda datagram: datagram.bind(("0.0.0.0", 0)),
    "a datagram": lambda datagram: datagram.sendto(b"x", ("127.0.0.1", 9)),
    "an event that is not known yet": lambda _: sys.audit("socket.new_in_python_4", "192.0.2.1"),
}


@pytest.mark.parametrize("name", USES)
def test_every_use_that_is_not_known_to_be_harmless_is_refused(name, monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        monkeypatch.setenv("SGLORA_OFFLINE", "1")
        network.enforce()
        with pytest.raises(Unavailable, match="the network may not be used"):
            USES[name](datagram)


def test_a_library_may_try_a_socket_where_only_a_step_is_forbidden():
    with network.no_network(), socket.socket() as local:
        local.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match="this step must not use it"):
            socket.getnameinfo(("192.0.2.1", 80), 0)


def test_what_asks_only_this_machine_is_allowed(monkeypatch, tmp_path):
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    network.enforce()
    assert socket.gethostname()
    assert socket.getservbyname("https", "tcp") == 443
    socket.getaddrinfo("localhost", 80)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))


def test_a_plugin_cannot_lift_it_by_removing_the_variable(monkeypatch):
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    network.enforce()
    monkeypatch.delenv("SGLORA_OFFLINE")
    assert network.offline()
    with pytest.raises(Unavailable, match="SGLORA_OFFLINE is set"):
        socket.getaddrinfo("example.org", 80)


@pytest.mark.parametrize(("value", "is_offline"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_what_counts_as_offline(monkeypatch, value, is_offline):
    monkeypatch.setenv("SGLORA_OFFLINE", value)
    assert network.offline() is is_offline
    network.enforce()
    assert os.environ.get("HF_HUB_OFFLINE") == ("1" if is_offline else None)


def test_libraries_report_to_nobody():
    code = (
        "from sglora_cli.plugin.host import Host; Host.load()\n"
        "from huggingface_hub import constants\n"
        "assert constants.HF_HUB_DISABLE_TELEMETRY\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_in_a_cache_are_found_without_asking(sealed, monkeypatch):
    import open_clip

    from sglora_openclip import hub

    monkeypatch.setattr(open_clip, "create_model", lambda *a, **k: "the model")
    assert hub.fetch_model(Host.load().backbones["clip-vit-b-16"]) == "the model"
    assert sealed == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the name huggingface.co does not resolve"),
        (TimeoutError(), "huggingface.co cannot be reached"),
    ],
)
def test_why_the_hub_cannot_be_used_is_said(monkeypatch, error, reason):
    def fail(*arguments, **more):
        raise error

    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://huggingface.co")
    monkeypatch.setattr(socket, "create_connection", fail)
    assert network.hub_unreachable() == reason
