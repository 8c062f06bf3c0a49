"""A file is replaced only while it is what was read: whenever somebody else writes it, their words stay."""

from __future__ import annotations

import os
import stat

import pytest

from sglora_cli.files import atomic, swap
from sglora_cli.files.hashes import data_hash
from sglora_cli.files.swap import ABSENT, state_of, swapped


@pytest.fixture(params=["names exchanged", "names not exchanged", "no hard links"])
def path(request, tmp_path, monkeypatch):
    """A file, on file systems that can do more or less."""
    if request.param != "names exchanged":
        monkeypatch.setattr(swap, "exchanged", lambda one, other: False)
    if request.param == "no hard links":
        monkeypatch.setattr(os, "link", refuse)
    file = tmp_path / "notes.txt"
    file.write_bytes(b"old")
    return file


def refuse(*_):
    raise OSError(1, "Operation not permitted")


def test_what_was_read_is_replaced_and_what_was_not_stays(path):
    assert swapped(path, data_hash(b"old"), b"new")
    assert path.read_bytes() == b"new"
    for before in (ABSENT, data_hash(b"old")):
        assert not swapped(path, before, b"newer")
        assert path.read_bytes() == b"new"
    path.unlink()
    assert state_of(path) == ABSENT
    assert not swapped(path, data_hash(b"new"), b"newer")
    assert swapped(path, ABSENT, b"newest")
    assert path.read_bytes() == b"newest"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("how", ["in place", "renamed"])
def test_words_written_before_the_last_comparison_stay(path, monkeypatch, how):
    """Whoever writes while our draft is written and synced wins."""
    real = os.fsync

    def edited(handle):
        monkeypatch.setattr(os, "fsync", real)
        edit(path, how)
        real(handle)

    monkeypatch.setattr(os, "fsync", edited)
    assert not swapped(path, data_hash(b"old"), b"new")
    assert path.read_bytes() == b"by hand"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("how", ["in place", "renamed"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="names are exchanged on Linux")
def test_words_written_after_the_last_comparison_come_back_where_names_can_be_exchanged(tmp_path, monkeypatch, how):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"old")

    def late(one, other):
        monkeypatch.setattr(swap, "exchanged", atomic.exchanged)
        edit(path, how)
        return atomic.exchanged(one, other)

    monkeypatch.setattr(swap, "exchanged", late)
    assert not swapped(path, data_hash(b"old"), b"new")
    assert path.read_bytes() == b"by hand"
    assert os.listdir(tmp_path) == [path.name]


def edit(path, how):
    if how == "in place":
        path.write_bytes(b"by hand")
    else:
        path.with_name("x").write_bytes(b"by hand")
        os.replace(path.with_name("x"), path)


def test_permissions_and_links_stay(path):
    path.chmod(0o640)
    link = path.with_name("link.txt")
    link.symlink_to(path.name)
    assert swapped(link, data_hash(b"old"), b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
