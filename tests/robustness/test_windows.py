"""On a disk that has Windows' rules, every command does its work, and what is left is the same as elsewhere."""

from __future__ import annotations

import os
import shutil

import pytest
from windows_disk import windows
from writing_commands import COMMANDS, lasting

from sglora_cli.files import atomic
from sglora_cli.files.atomic import drop_drafts, write_bytes, writing
from sglora_cli.pack.library import Library
from sglora_cli.pack.pack import Pack

__all__ = ["windows"]  # the fixture


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_writes_the_same_files_as_elsewhere(stage, own_home, run, tmp_path_factory, request, name):
    copy, arguments = tmp_path_factory.mktemp("copy"), [text.format(stage) for text in COMMANDS[name]]
    pairs = [(own_home, copy / "home"), (stage, copy / "stage")]
    for source, target in pairs:
        shutil.copytree(source, target)
    assert run(*arguments).exit_code == 0
    expected = [lasting(source) for source, _ in pairs]
    for source, target in pairs:
        shutil.rmtree(source)
        shutil.copytree(target, source)
    disk = request.getfixturevalue("windows")
    result = run(*arguments)
    assert result.exit_code == 0, (result.stderr, disk.refused)
    assert disk.refused == []
    assert [lasting(source) for source, _ in pairs] == expected
    for location in Library([]).packs():
        assert Pack(location.folder).verify() == []


def test_commands_that_read_write_and_replace_what_they_read(stage, own_home, run, windows, images):
    """What a user does in an hour."""
    for arguments in (
        ["generate", "a photo of a jar", "--pack", "toys"],
        ["generate", "a photo of a jar: 3 < 4?", "--pack", "toys"],
        ["generate", "con", "--pack", "toys"],
        ["list"],
        ["search", images, "a red ball", "--adapter", stage / "mug.safetensors", "--report", stage / "page.html"],
        ["search", images, "a red ball", "--adapter", stage / "mug.safetensors", "--copy", stage / "copies"],
        ["try", stage / "mug.safetensors", "--images", images, "--report", stage / "page.html"],
        ["import", stage / "mug-peft", "--backbone", "tiny", "-o", stage / "mug.safetensors", "--force"],
        ["export", stage / "mug.safetensors", "-o", f"{stage}/mug-peft/", "--force"],
        ["inspect", stage / "mug.safetensors"],
        ["pack", "verify", "toys"],
        ["pack", "import", stage / "toys.sglora.zip", "--name", "others"],
        ["settings", "set", "pack", "others"],
        ["settings", "set", "pack", "toys"],
        ["bench", "--baselines", "top-k", "--rows", stage / "rows.jsonl"],
        ["bench", "--baselines", "top-k,nearest", "--rows", stage / "rows.jsonl"],
        ["cache", "clean", "--yes"],
    ):
        result = run(*arguments)
        assert result.exit_code == 0, (arguments, result.stderr, windows.refused)
    assert windows.refused == []


def test_what_a_killed_process_left_is_removed(tmp_path, windows):
    left = tmp_path / ".x.12345678.draft"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    write_bytes(tmp_path / "x", b"new")
    assert os.listdir(tmp_path) == ["x"]


def test_a_draft_that_is_open_stays(tmp_path, windows):
    with writing(tmp_path / "x") as file:
        file.write(b"half")
        drop_drafts(tmp_path / "x", locked=True)
        assert len(os.listdir(tmp_path)) == 1
    assert windows.refused.pop().startswith("change a file in use")
    assert (tmp_path / "x").read_bytes() == b"half"


def test_the_disk_refuses_what_windows_refuses(tmp_path, windows):
    """Otherwise the tests above would show nothing."""
    path = tmp_path / "x"
    path.write_bytes(b"x")
    with path.open("rb"):
        for change in (path.unlink, lambda: os.replace(path, tmp_path / "y"), lambda: tmp_path.rename(f"{tmp_path}-y")):
            with pytest.raises(PermissionError, match="Windows: change a file in use"):
                change()
    for name in ("a:b", "a?", "nul", "COM1.txt", "dot.", "blank "):
        with pytest.raises(OSError, match="Windows: this name"):
            (tmp_path / name).write_bytes(b"x")
    with pytest.raises(PermissionError, match="Windows: open a folder"):
        atomic._sync(tmp_path)
    with pytest.raises(PermissionError, match="Windows: make a symbolic link"):
        (tmp_path / "z").symlink_to(path)
    handle = os.open(path, os.O_RDONLY)
    with pytest.raises(OSError, match="Windows: sync a file"):
        os.fsync(handle)
    os.close(handle)
    path.unlink()
