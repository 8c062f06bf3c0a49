"""Settings: option > environment > settings file > default."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import BadFile, Unavailable, UnknownName, UsageError
from sglora_cli.files import swap
from sglora_cli.system import settings


def test_environment_before_file_before_default(own_home, monkeypatch):
    assert settings.load() == settings.Settings()
    (own_home / "settings.toml").write_text('pack = "one"\ndata = "two"\n')
    monkeypatch.setenv("SGLORA_DATA", "three")
    assert (settings.load().pack, settings.load().data) == ("one", "three")


def test_a_wrong_settings_file_is_refused(own_home):
    path = own_home / "settings.toml"
    path.write_text('pakc = "x"')
    with pytest.raises(UnknownName, match="named 'pakc'"):
        settings.load()
    path.write_text("pack = 3")
    with pytest.raises(BadFile, match="pack must be a string, got 3"):
        settings.load()
    path.write_text("pack = ]")
    with pytest.raises(BadFile, match="line 1"):
        settings.load()


def test_the_settings_choose_the_pack(run, toy_pack, own_home):
    (own_home / "settings.toml").write_text('pack = "starter"')
    assert "pack starter: " in run("pack", "show").stdout
    assert run("pack", "list").stdout == (
        "*  starter  starter  36 experts  bundled\n   toys     tiny     4 experts   built\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        'pack = """\nold"""  # why\n',
        '"pack" = "old"  # why\r\ndevice = "cpu"\r\n',
        "  pack='old'# why",
        "# why\n",
        "",
    ],
)
@pytest.mark.parametrize("value", ["starter", 'C:\\new "folder"\t', "\x1b[31m\x7f", "Köln-猫\u2028", "''' #"])
def test_what_is_written_is_what_is_read(own_home, text, value):
    path = own_home / "settings.toml"
    path.write_bytes(text.encode())
    others = tomli.loads(text) | {"pack": value}
    settings.write_setting("pack", value)
    written = path.read_bytes().decode()
    assert tomli.loads(written) == others
    assert settings.load().pack == value
    assert ("# why" in written) == ("# why" in text)
    settings.write_setting("pack", None)
    assert tomli.loads(path.read_bytes().decode()) == {key: one for key, one in others.items() if key != "pack"}


def test_a_settings_file_that_is_wrong_is_not_changed(own_home):
    path = own_home / "settings.toml"
    path.write_text("pack = ]")
    with pytest.raises(BadFile, match="line 1"):
        settings.write_setting("pack", "starter")
    assert path.read_text() == "pack = ]"


def test_settings_are_read_anew(own_home):
    assert settings.current()["pack"].origin == "default"
    Path(own_home / "settings.toml").write_text('pack = "x"\n')
    assert settings.current()["pack"] == settings.Setting("x", "file")


def test_what_others_write_into_the_settings_meanwhile_stays(own_home, monkeypatch):
    path, real, edits = (
        own_home / "settings.toml",
        swap.state_of,
        iter(["device = 'cpu'\n", "# mine\ndevice = 'cpu'\n"]),
    )

    def busy(file):
        if text := next(edits, ""):
            path.write_text(text)
        return real(file)

    path.write_text('pack = "old"\n')
    monkeypatch.setattr(swap, "state_of", busy)
    settings.write_setting("backbone", "tiny")
    assert path.read_text() == "# mine\ndevice = 'cpu'\nbackbone = \"tiny\"\n"


def test_a_settings_file_that_never_rests_is_said(own_home, monkeypatch):
    path, count = own_home / "settings.toml", iter(range(1000))
    path.write_text("")
    monkeypatch.setattr(swap, "state_of", lambda _: path.write_text(f"# {next(count)}\n") and "another")
    with pytest.raises(Unavailable, match="another program keeps changing"):
        settings.write_setting("pack", "starter")
    assert path.read_text().startswith("# ")


def test_settings_keep_their_link_and_their_permissions(own_home, tmp_path):
    (tmp_path / "dotfiles.toml").write_text("# mine\n")
    (tmp_path / "dotfiles.toml").chmod(0o600)
    (own_home / "settings.toml").symlink_to(tmp_path / "dotfiles.toml")
    settings.write_setting("pack", "starter")
    assert (tmp_path / "dotfiles.toml").read_text() == '# mine\npack = "starter"\n'
    assert (own_home / "settings.toml").is_symlink()
    assert (tmp_path / "dotfiles.toml").stat().st_mode & 0o777 == 0o600


NOTE = "device cuda of {} is not available on this machine, using cpu\n"


@pytest.mark.parametrize(("origin", "name"), [("file", "the settings"), ("environment", "SGLORA_DEVICE")])
def test_a_device_of_the_settings_that_is_not_here_is_the_cpu_with_one_note(
    run, own_home, monkeypatch, tmp_path, origin, name
):
    if origin == "file":
        (own_home / "settings.toml").write_text('device = "cuda"\n')
    else:
        monkeypatch.setenv("SGLORA_DEVICE", "cuda")
    made = ("generate", "a photo of a pug", "--force", "-o", tmp_path / "pug.safetensors")
    result = run(*made)
    assert result.exit_code == 0
    assert result.stderr.count(NOTE.format(name)) == 1
    assert "cuda" not in run(*made, "--quiet").stderr
    assert "cuda" not in run(*made, "--device", "cpu").stderr


def test_a_device_that_the_command_names_is_refused(run, tmp_path):
    refused = run("generate", "a mug", "-o", tmp_path / "a.safetensors", "--device", "cuda")
    assert (refused.exit_code, list(tmp_path.iterdir())) == (6, [])


def test_a_device_of_the_settings_is_not_looked_at_where_another_is_named(monkeypatch):
    monkeypatch.setenv("SGLORA_DEVICE", "cuda")
    assert settings.runtime(RuntimeConfig(device="mps"), "starter").device == "mps"
    assert settings.runtime(RuntimeConfig(), "starter").device == "cpu"


def test_a_device_of_the_settings_that_no_device_has_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setenv("SGLORA_DEVICE", "cudda")
    with pytest.raises(UsageError, match="there is no device 'cudda'") as raised:
        settings.runtime(RuntimeConfig(), "starter")
    assert raised.value.hint == "unset SGLORA_DEVICE"
