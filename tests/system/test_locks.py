"""A lock's file lies beside what it locks, has a name that a file system takes, and goes with what it locked."""

from __future__ import annotations

import os

import pytest

from sglora_cli.errors import Unavailable
from sglora_cli.system import cache
from sglora_cli.system.locks import lock_file, locked

LONG = "x" * 230
NAMES = ["pug.safetensors", f"{LONG}.safetensors", "漢" * 80, f"{'a' * 250}1.p", f"{'a' * 250}2.p", "a" * 201]


def test_every_legal_name_has_a_lock_of_its_own(tmp_path):
    locks = {lock_file(tmp_path / name) for name in NAMES}
    assert len(locks) == len(NAMES)
    assert all(len(os.fsencode(lock.name)) <= 255 for lock in locks)
    assert lock_file(tmp_path / "pug.safetensors").name == ".pug.safetensors.lock"


@pytest.mark.parametrize("name", NAMES)
def test_a_long_name_is_locked_against_itself_and_nobody_else(tmp_path, name):
    with locked(tmp_path / name):
        with locked(tmp_path / f"{name[:-1]}2", wait=False):
            pass
        with pytest.raises(Unavailable, match="another process is writing"), locked(tmp_path / name, wait=False):
            pass


def test_cleaning_keeps_the_locks_of_what_stays_and_removes_the_others(own_home):
    rows = own_home / "cache/rows"
    stays, goes = rows / f"{LONG}1.jsonl", rows / f"{LONG}2.jsonl"
    for path in (stays, goes):
        with locked(path):
            path.write_text("{}\n")
    goes.unlink()
    cache.clean([])
    assert set(rows.iterdir()) == {stays, lock_file(stays)}
