"""What differs on macOS and Windows, simulated: user folders, memory, locks, text in another encoding."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import filelock
import platformdirs
import psutil
import pytest
from platformdirs.macos import MacOS
from platformdirs.windows import Windows

from sglora_cli.errors import Unavailable
from sglora_cli.files import atomic, swap
from sglora_cli.files.atomic import exchanged, put_folder
from sglora_cli.files.names import file_stem, sentence_stem
from sglora_cli.system import hardware
from sglora_cli.system.locks import locked
from sglora_cli.system.paths import cache_folder, settings_file

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("system", "cache", "settings"),
    [
        (MacOS, "{}/Library/Caches/sglora", "{}/Library/Application Support/sglora/settings.toml"),
        (Windows, "{}/AppData/Local/sglora/Cache", "{}/AppData/Local/sglora/settings.toml"),
    ],
)
def test_user_folders(tmp_path, monkeypatch, system, cache, settings):
    monkeypatch.delenv("SGLORA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(
        "platformdirs.windows.get_win_folder", lambda name: {"CSIDL_LOCAL_APPDATA": f"{tmp_path}/AppData/Local"}[name]
    )
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *a, **k: system(*a, **k).user_cache_dir)
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda *a, **k: system(*a, **k).user_config_dir)
    assert cache_folder().as_posix().replace("\\", "/") == cache.format(tmp_path)
    assert settings_file().as_posix().replace("\\", "/") == settings.format(tmp_path)


def test_peak_memory_in_the_units_of_each_system(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrusage", lambda who: types.SimpleNamespace(ru_maxrss=5))
    sizes = {}
    for system in ("linux", "darwin"):
        monkeypatch.setattr(sys, "platform", system)
        sizes[system] = hardware.peak_memory()
    assert sizes == {"linux": 5 * 1024, "darwin": 5}
    monkeypatch.setattr(sys, "platform", "win32")
    process = types.SimpleNamespace(memory_info=lambda: types.SimpleNamespace(peak_wset=7))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    assert hardware.peak_memory() == 7


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_names_are_exchanged_on_linux_only(tmp_path, monkeypatch, system):
    atomic._rename.cache_clear()
    monkeypatch.setattr(sys, "platform", system)
    try:
        assert not exchanged(tmp_path / "a", tmp_path / "b")
        assert swap.exchanged is exchanged
        for text in ("old", "new"):
            folder = tmp_path / "draft"
            folder.mkdir()
            (folder / "a").write_text(text)
            put_folder(folder, tmp_path / "pack")
        assert (tmp_path / "pack/a").read_text() == "new"
        assert os.listdir(tmp_path) == ["pack"]
    finally:
        atomic._rename.cache_clear()


def test_locks_that_are_files_exclude_each_other_too(tmp_path, monkeypatch):
    """`FileLock` is a SoftFileLock where the system has neither flock nor msvcrt."""
    monkeypatch.setattr("sglora_cli.system.locks.FileLock", filelock.SoftFileLock)
    with locked(tmp_path / "pack"), pytest.raises(Unavailable, match="another process is writing"):
        locked(tmp_path / "pack", wait=False).__enter__()
    with locked(tmp_path / "pack", wait=False):
        pass


@pytest.mark.parametrize("text", ["con", "NUL", "com1", "a/b", "a\\b", 'a<b>c:"d|e?f*g', "dot.", " blank ", "É" * 200])
def test_names_made_from_texts_are_names_on_every_system(text):
    for name in (file_stem(text), sentence_stem(text)):
        assert not set(name) & set('<>:"/\\|?*')
        assert name == name.strip(". ")
        assert name.lower() == name
        assert name not in ("con", "nul", "com1")
        assert len(os.fsencode(name)) < 200


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["generate", "a photo of a 漢 café", "-o", "adapter.safetensors", "--explain"],
        ["pack", "show", "starter"],
        ["docs", "method"],
        ["plugins", "list"],
    ],
)
def test_output_to_a_pipe_that_takes_cp1252_only(tmp_path, arguments):
    """As of Windows: what it cannot hold is escaped."""
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sglora_cli.cli.main", *arguments]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode("cp1252").strip()
    assert b"Traceback" not in result.stderr


def test_no_text_file_is_read_or_written_in_the_encoding_of_the_system():
    command = [sys.executable, "-m", "ruff", "check", "--preview", "--select", "PLW1514", "sglora_cli", "plugins"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
