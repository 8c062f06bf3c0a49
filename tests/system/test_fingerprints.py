"""What is remembered of files, and when it is not."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from sglora_cli.errors import BadFile, Unavailable
from sglora_cli.system import fingerprints
from sglora_cli.system.fingerprints import FrozenFile, remembered
from sglora_cli.system.paths import cache_folder

HOUR = 3600 * 10**9


def write(path: Path, text: str, age: int = HOUR) -> Path:
    path.write_text(text)
    then = time.time_ns() - age
    os.utime(path, ns=(then, then))
    return path


class Counted:
    def __init__(self, *paths: Path) -> None:
        self.paths, self.calls = paths, 0

    def __call__(self) -> str:
        self.calls += 1
        return "+".join(path.read_text() for path in self.paths)


def test_a_value_is_computed_once_while_the_files_are_the_same(tmp_path):
    one, two = write(tmp_path / "one", "1"), write(tmp_path / "two", "2")
    compute = Counted(one, two)
    assert [remembered("sum", [one, two], compute) for _ in range(3)] == ["1+2"] * 3
    assert compute.calls == 1


@pytest.mark.parametrize("change", ["size", "time", "time set back", "inode", "other text"])
def test_a_changed_file_is_computed_anew(tmp_path, change):
    path = write(tmp_path / "w", "old")
    compute = Counted(path)
    assert remembered("x", [path], compute) == "old"
    times = path.stat().st_mtime_ns
    if change == "size":
        path.write_text("newer")
        os.utime(path, ns=(times, times))
    elif change == "time":
        write(path, "new", age=HOUR // 2)
    elif change == "time set back":
        path.write_text("new")
        os.utime(path, ns=(times, times))
    elif change == "inode":
        write(tmp_path / "w2", "new")
        os.utime(tmp_path / "w2", ns=(times, times))
        os.replace(tmp_path / "w2", path)
    else:
        assert remembered("y", [path], compute) == "old"
        assert compute.calls == 2
        return
    assert remembered("x", [path], compute) == path.read_text()
    assert compute.calls == 2


def test_a_file_changed_a_moment_ago_is_not_relied_on(tmp_path):
    path = write(tmp_path / "w", "one", age=0)
    compute = Counted(path)
    remembered("x", [path], compute), remembered("x", [path], compute)
    assert compute.calls == 2


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path):
    path = write(tmp_path / "w", "one")

    def compute() -> str:
        write(path, "two", age=2 * HOUR)
        return "of one"

    assert remembered("x", [path], compute) == "of one"
    assert remembered("x", [path], Counted(path)) == "two"


@pytest.mark.parametrize("damage", ["", "{", '{"seal": "0", "content": {"files": [], "value": "evil"}}', "[]"])
def test_a_damaged_note_is_made_anew(tmp_path, damage):
    path = write(tmp_path / "w", "one")
    remembered("x", [path], Counted(path))
    (note,) = (cache_folder() / "fingerprints").iterdir()
    note.write_text(damage)
    assert remembered("x", [path], Counted(path)) == "one"


def test_a_cache_that_cannot_be_written_remembers_nothing(tmp_path, monkeypatch):
    def refused(path, content):
        raise Unavailable("read-only")

    monkeypatch.setattr(fingerprints, "write_sealed", refused)
    path = write(tmp_path / "w", "one")
    compute = Counted(path)
    assert [remembered("x", [path], compute) for _ in "ab"] == ["one", "one"]
    assert compute.calls == 2


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadFile, match=r"gone does not exist"):
        remembered("x", [tmp_path / "gone"], lambda: "")


@pytest.mark.parametrize("age", [0, HOUR])
@pytest.mark.parametrize("hashed_first", [True, False])
def test_frozen_weights_that_change_between_hashing_and_loading_are_refused(tmp_path, hashed_first, age):
    path = write(tmp_path / "w", "one", age)
    file, one = FrozenFile(path), hashlib.sha256(b"one").hexdigest()
    if hashed_first:
        assert file.sha256 == one
    assert file.read() == b"one"
    write(path, "two", age)
    assert file.sha256 == one
    with pytest.raises(BadFile, match="w changed after its fingerprint was taken"):
        file.read()


def test_a_settled_file_is_hashed_once(tmp_path, monkeypatch):
    path = write(tmp_path / "w", "one")
    first = FrozenFile(path)
    assert first.read() == b"one"
    monkeypatch.setattr(fingerprints, "data_hash", lambda data: pytest.fail("hashed again") if data == b"one" else "n")
    monkeypatch.setattr(fingerprints, "file_hash", lambda path: pytest.fail("hashed again"))
    monkeypatch.setattr(fingerprints, "_place", lambda *_: next((cache_folder() / "fingerprints").iterdir()))
    again = FrozenFile(path)
    assert (again.sha256, again.read()) == (first.sha256, b"one")
