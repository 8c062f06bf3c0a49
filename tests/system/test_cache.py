"""The cache: what lies in it, and what is removed."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from sglora_cli.errors import Unavailable
from sglora_cli.system import cache


@pytest.fixture
def cached(own_home):
    """A file of every kind, each 10 bytes, and a draft that is two hours old."""
    root = own_home / "cache"
    paths = {}
    for kind in ("features", "work", "adapters", "rows", "packs"):
        path = root / kind / ("toys/pack.json" if kind == "packs" else "a.safetensors")
        path.parent.mkdir(parents=True)
        path.write_bytes(b"0123456789")
        paths[kind] = path
    draft = root / "work" / ".a.safetensors.12345678.draft"
    draft.write_bytes(b"0123456789")
    os.utime(draft, (time.time() - 7200,) * 2)
    return {**paths, "drafts": draft}


def test_cleaning_takes_what_is_made_again_and_nothing_else(run, cached):
    assert "2 items, 20 B would be removed" not in run("cache", "clean", "--dry-run").stdout  # and the draft
    assert all(path.exists() for path in cached.values())
    assert run("cache", "clean", "--yes").stdout == "3 items, 30 B removed\n"
    assert {kind for kind, path in cached.items() if path.exists()} == {"adapters", "rows", "packs"}
    assert run("cache", "clean", "packs", "--yes").stdout == "1 item, 10 B removed\n"
    assert not cached["packs"].parent.exists()


def test_cleaning_asks(run, cached):
    result = run("cache", "clean")
    assert result.exit_code == 2
    assert "hint: pass --yes" in result.stderr
    assert cached["features"].exists()


def test_cleaning_by_age_and_kind(run, cached):
    os.utime(cached["features"], (time.time() - 86400 * 31,) * 2)
    assert run("cache", "clean", "features", "work", "--older-than", "30d", "--yes").stdout == "1 item, 10 B removed\n"
    assert cached["work"].exists()
    assert run("cache", "clean", "--older-than", "soon").exit_code == 2
    assert "did you mean 'features'?" in run("cache", "clean", "featurs").stderr


def test_what_is_being_made_stays(cached):
    with FileLock(cached["features"].with_name(".a.safetensors.lock")):
        done = cache.clean(cache.to_clean(["features", "work"]))
    assert [item.path for item in done.removed] == [cached["work"]]
    assert [(item.path, reason) for item, reason in done.kept] == [
        (cached["features"], "another process is writing it")
    ]


def test_nothing_is_cleaned_under_a_running_build(cached):
    with cache.lease(), pytest.raises(Unavailable, match="another sglora process is using the cache"):
        cache.clean(cache.to_clean([]))
    assert cached["work"].exists()
    cache.clean(cache.to_clean([]))
    assert not cached["work"].exists()


def test_a_killed_process_holds_nothing(cached, own_home):
    code = "import os; from sglora_cli.system import cache\nwith cache.lease(): os._exit(1)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert list((own_home / "cache/.in-use").glob("*.lock"))
    cache.clean(cache.to_clean([]))
    assert not cached["work"].exists()


def test_a_pack_that_was_moved_away_and_never_replaced_is_no_rest(own_home):
    old = own_home / "cache/packs/.toys.old"
    old.mkdir(parents=True)
    (old / "pack.json").write_text("{}")
    assert cache.items("drafts") == []
