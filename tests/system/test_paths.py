"""User folders, also where nobody knows the user's home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sglora_cli.errors import Unavailable
from sglora_cli.system import paths

pwd = pytest.importorskip("pwd")


@pytest.fixture
def homeless(monkeypatch):
    """A user id without a name and without HOME, as in a container."""

    def unknown(*_):
        raise KeyError

    for name in [name for name in os.environ if name in ("HOME", "SGLORA_HOME") or name.startswith("XDG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


@pytest.mark.parametrize("arguments", [["pack", "list"], ["settings"], ["generate", "a pug"], ["cache", "info"]])
def test_without_a_home_a_command_says_what_to_set(run, homeless, arguments, monkeypatch, tmp_path):
    result = run(*arguments)
    assert result.stderr == (
        "error: the home folder of this user is unknown\nhint: export SGLORA_HOME=FOLDER with a writable FOLDER\n"
    )
    assert result.exit_code == 6
    monkeypatch.setenv("SGLORA_HOME", str(tmp_path))
    assert run(*arguments[:1], *arguments[1:]).exit_code == 0


@pytest.mark.parametrize("value", ["~/data", "~nobody-of-that-name/data"])
def test_a_home_that_is_unknown_is_an_error_of_the_path(homeless, value):
    for find in (paths.expanded, lambda path: paths.data_folder(path, "")):
        with pytest.raises(Unavailable, match=f"the home folder in {value} is unknown") as error:
            find(value)
        assert error.value.hint == "write the path in full, without ~"


def test_a_home_that_is_known_is_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/katze")
    monkeypatch.setenv("USERPROFILE", "/katze")
    assert paths.expanded("~/data") == Path("/katze/data")
