"""`sglora settings`: shown, set, unset."""

from __future__ import annotations

import pytest

from sglora_cli.cli.commands import settings as settings_command
from sglora_cli.plugin.host import Host


def test_settings_say_where_they_come_from(run, own_home, monkeypatch):
    (own_home / "settings.toml").write_text('pack = "starter"\n')
    monkeypatch.setenv("SGLORA_DATA", "/x")
    lines = [line.split() for line in run("settings").stdout.splitlines()]
    assert ["pack", "starter", "file"] in lines
    assert ["data", "/x", "SGLORA_DATA"] in lines
    assert ["backbone", "clip-vit-b-16", "default"] in lines


def test_changing_a_setting_keeps_everything_else(own_home):
    path = own_home / "settings.toml"
    path.write_text("# mine\npack = \"old\"  # why\n\ndevice = 'cpu'")
    host = Host.load()
    settings_command.put(host, "pack", "starter")
    settings_command.put(host, "generator", "ties:density=0.5")
    assert path.read_text() == ('# mine\npack = "starter"  # why\n\ndevice = \'cpu\'\ngenerator = "ties:density=0.5"\n')
    settings_command.drop("device")
    settings_command.drop("weights")
    assert path.read_text() == '# mine\npack = "starter"  # why\n\ngenerator = "ties:density=0.5"\n'


@pytest.mark.parametrize(
    ("key", "value", "code", "hint"),
    [
        ("pakc", "x", 3, "did you mean 'pack'?"),
        ("pack", "startr", 3, "did you mean 'starter'?"),
        ("generator", "tis", 3, "did you mean 'ties'?"),
        ("executor", "rai", 3, "did you mean 'ray'?"),
        ("executor", "ray:head", 2, "write ray:HOST:6379, with the head's HOST"),
        ("data", "/nowhere", 6, "set data to an existing folder; searched in /"),
        ("device", "", 2, "sglora settings unset device"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(run, own_home, key, value, code, hint):
    result = run("settings", "set", key, value)
    assert result.exit_code == code
    assert f"hint: {hint}\n" in result.stderr
    assert not (own_home / "settings.toml").exists()
