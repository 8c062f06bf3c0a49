"""What is kept of photos: the same numbers again, also when files change, break or cannot be written."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import warnings
from pathlib import Path

import pytest
import torch

from sglora_cli.data import photo_store as module
from sglora_cli.data.photo_store import PhotoFiles, PhotoStore, matrix, photo_store, rows_of, store_file
from sglora_cli.errors import BadFile, SgloraWarning

ROW, TWICE = rows_of(torch.tensor([[1.5, -2.0, 3.25], [3.0, -4.0, 6.5]]))


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{n}.jpg" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes([n]) * 100)
        os.utime(path, (1_000_000, 1_000_000))  # long ago: what is known of it can be relied on
    return paths


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_hashes_are_those_of_the_bytes(photos):
    with photo_store() as store:
        assert store.hashes(PhotoFiles.of(photos)) == [sha256(path) for path in photos]


def test_a_photo_that_did_not_change_is_not_read_again(photos, monkeypatch):
    with photo_store() as store:
        known = store.hashes(PhotoFiles.of(photos))
    monkeypatch.setattr(module, "file_hash", lambda path: pytest.fail(f"{path} was read"))
    with photo_store() as store:
        assert store.hashes(PhotoFiles.of(photos)) == known


def test_a_photo_that_changed_is_read_again(photos):
    with photo_store() as store:
        store.hashes(PhotoFiles.of(photos))
    photos[1].write_bytes(b"x" * 100)
    os.utime(photos[1], (1_000_000, 1_000_000))  # as a program does that keeps the times: the system's own still tells
    with photo_store() as store:
        assert store.hashes(PhotoFiles.of(photos)) == [sha256(path) for path in photos]


def test_a_photo_that_was_just_written_is_read_again(photos, monkeypatch):
    photos[0].write_bytes(b"new")
    with photo_store() as store:
        store.hashes(PhotoFiles.of(photos))
        read = []
        monkeypatch.setattr(module, "file_hash", lambda path: read.append(path) or "0" * 64)
        store.hashes(PhotoFiles.of(photos))
    assert read == [photos[0]]


def test_a_photo_that_cannot_be_read_says_why(photos, tmp_path):
    missing, folder = tmp_path / "none.jpg", tmp_path / "folder.jpg"
    folder.mkdir()
    with photo_store() as store:
        found = store.hashes(PhotoFiles.of([missing, photos[0], folder]))
    assert isinstance(found[0], BadFile)
    assert found[0].message == f"image {missing} does not exist"
    assert found[1] == sha256(photos[0])
    assert isinstance(found[2], BadFile)


def test_rows_come_back_as_they_were():
    with photo_store() as store:
        store.put("space", {"a": ROW, "b": TWICE})
        store.put("other", {"a": TWICE})
    with photo_store() as store:
        found = store.vectors("space", ["a", "b", "c", "a"])
        assert sorted(found) == ["a", "b"]
        assert found["a"] == ROW
        assert store.vectors("other", ["a", "b"])["a"] == TWICE


def test_more_rows_than_one_question_takes(monkeypatch):
    monkeypatch.setattr(module, "_ASKED_AT_ONCE", 7)
    with photo_store() as store:
        store.put("space", dict(zip(map(str, range(50)), rows_of(torch.arange(50.0)[:, None]), strict=True)))
        found = store.vectors("space", map(str, range(60)))
    assert matrix([found[str(n)] for n in range(50)]).flatten().tolist() == list(range(50))
    assert len(found) == 50


@pytest.mark.parametrize("harm", [b"", b"not a database at all" * 100])
def test_a_file_that_is_damaged_is_made_anew(harm):
    with photo_store() as store:
        store.put("space", {"a": ROW})
    store_file().write_bytes(harm)
    with photo_store() as store:
        assert store.vectors("space", ["a"]) == {}
        store.put("space", {"a": ROW})
    with photo_store() as store:
        assert store.vectors("space", ["a"])["a"] == ROW


def test_a_file_that_is_damaged_in_the_middle_is_made_anew():
    with photo_store() as store:
        store.put("space", dict(zip(map(str, range(100)), rows_of(torch.rand(100, 500)), strict=True)))
    data = bytearray(store_file().read_bytes())
    data[4096:-4096] = b"\xff" * (len(data) - 8192)
    store_file().write_bytes(data)
    with photo_store() as store:
        assert store.vectors("space", map(str, range(100))) == {}
        store.put("space", {"1": ROW})
        assert store.vectors("space", ["1"])["1"] == ROW


def test_a_row_whose_bits_changed_is_not_believed():
    with photo_store() as store:
        store.put("space", {"a": ROW, "b": ROW})
    database = sqlite3.connect(store_file())
    with database:
        (packed,) = database.execute("SELECT numbers FROM vector WHERE sha256 = 'a'").fetchone()
        database.execute("UPDATE vector SET numbers = ? WHERE sha256 = 'a'", (bytes([packed[0] ^ 1]) + packed[1:],))
    database.close()
    with photo_store() as store:
        assert list(store.vectors("space", ["a", "b"])) == ["b"]


def test_what_another_version_wrote_is_dropped(monkeypatch):
    with photo_store() as store:
        store.put("space", {"a": ROW})
    database = sqlite3.connect(store_file())
    database.execute("PRAGMA user_version = 99")
    database.close()
    with photo_store() as store:
        assert store.vectors("space", ["a"]) == {}


def test_a_cache_that_cannot_be_written_keeps_it_in_memory(own_home):
    (own_home / "cache").mkdir()
    (own_home / "cache/embeddings").write_text("a file where a folder is needed")
    with pytest.warns(SgloraWarning, match="embeddings of photos are not cached"):
        store = PhotoStore(store_file())
    store.put("space", {"a": ROW})
    assert store.vectors("space", ["a"])["a"] == ROW
    store.close()


def test_two_processes_may_write_at_once():
    first, second = PhotoStore(store_file()), PhotoStore(store_file())
    first.put("space", {"a": ROW})
    second.put("space", {"b": TWICE})
    assert sorted(first.vectors("space", ["a", "b"])) == ["a", "b"] == sorted(second.vectors("space", ["a", "b"]))
    first.close()
    second.close()


def test_while_another_process_holds_the_file_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.05)
    with photo_store() as store:
        store.put("space", {"a": ROW})
        other = sqlite3.connect(store_file(), isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            store.put("space", {"b": ROW})
        other.execute("ROLLBACK")
        other.close()
        assert [str(one.message) for one in caught] == [
            f"embeddings of photos are not cached: {store_file()}: database is locked"
        ]
        assert store.vectors("space", ["b"])["b"] == ROW  # for this run
    with photo_store() as store:
        assert list(store.vectors("space", ["a", "b"])) == ["a"]


def test_only_the_newest_collections_are_cached_and_damaged_ones_are_ignored(monkeypatch):
    monkeypatch.setattr(module, "_COLLECTIONS", 2)
    with photo_store() as store:
        for key in "abc":
            store.put_collection(key, key.encode() * 3)
        assert [store.collection(key) for key in "abc"] == [None, b"bbb", b"ccc"]
    database = sqlite3.connect(store_file())
    with database:
        database.execute("UPDATE collection SET data = CAST(x'00' || substr(data, 2) AS BLOB) WHERE key = 'b'")
        database.execute("UPDATE collection SET data = x'' WHERE key = 'c'")
    database.close()
    with photo_store() as store:
        assert [store.collection(key) for key in "bc"] == [None, None]


def test_a_collection_that_is_too_large_is_not_cached(monkeypatch):
    monkeypatch.setattr(module, "_COLLECTION_LIMIT", 2)
    with photo_store() as store:
        store.put_collection("a", b"aaa")
        assert store.collection("a") is None


def test_it_can_be_cleaned(run):
    with photo_store() as store:
        store.put("space", {"a": ROW})
    assert run("cache", "clean", "embeddings", "--yes").exit_code == 0
    assert not store_file().exists()
    shutil.rmtree(store_file().parent, ignore_errors=True)
    with photo_store() as store:
        assert store.vectors("space", ["a"]) == {}
