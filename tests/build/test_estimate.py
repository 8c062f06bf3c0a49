"""What a build will need is said before it starts, and a machine that is too small is refused."""

from __future__ import annotations

import json

import pytest

from sglora_cli import errors
from sglora_cli.build import estimate as estimate_module
from sglora_cli.build.estimate import Estimate, Stage
from sglora_cli.pack.pack import Pack


def estimate(tmp_path, **values):
    given = {"memory": 1000, "cache_bytes": 10, "pack_bytes": 20, "device_memory": 0, **values}
    return Estimate([Stage("all", "of it", 100.0)], 3, "cpu", target=tmp_path / "new/pack", **given)


def test_a_build_says_before_it_starts_what_it_will_need(run, tiny, toys, recipe):
    result = run("pack", "build", recipe, "--data", toys)
    lines = result.stderr.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["features", "adapters", "joint", "cvae"]
    assert lines[0].startswith("features  51 photos")
    assert lines[4].startswith("10 LoRAs, about ")
    assert lines[4].endswith(" on cpu, measured on a few steps")
    assert lines[5].startswith("memory: about ")
    assert lines[6].startswith("disk: ")


def test_what_is_done_is_not_counted_again(run, toy_pack, toys, recipe):
    facts = json.loads(run("pack", "build", recipe, "--data", toys, "--dry-run", "--json").stdout)
    done = {stage["name"]: stage["seconds"] for stage in facts["stages"]}
    assert (done["features"], done["adapters"], done["joint"]) == (0, 0, 0)
    assert "51 photos" not in run("pack", "build", recipe, "--data", toys, "--dry-run").stdout


def test_states_and_photos_make_the_size_of_the_cache(run, tiny, toys, recipe, own_home):
    facts = json.loads(run("pack", "build", recipe, "--data", toys, "--dry-run", "--json").stdout)
    assert run("pack", "build", recipe, "--data", toys).exit_code == 0
    cache, pack = own_home / "cache", own_home / "cache/packs/toys"
    written = sum(p.stat().st_size for name in ("work", "features") for p in (cache / name).glob("*.safetensors"))
    numbers = sum(p.stat().st_size for p in pack.rglob("*.safetensors"))
    headers = 600 * len(list(cache.rglob("*.safetensors")))  # a file of a toy is mostly its header
    assert written - headers < facts["cache_bytes"]
    assert facts["cache_bytes"] < 3 * written
    assert numbers - headers < facts["pack_bytes"] < 3 * numbers


def test_too_small_a_disk_is_refused_before_anything_is_done(run, tiny, toys, recipe, own_home, monkeypatch):
    monkeypatch.setattr(estimate_module, "free_disk", lambda path: 100)
    result = run("pack", "build", recipe, "--data", toys)
    assert result.exit_code == 6
    assert "of disk space at" in result.stderr.splitlines()[-2]
    assert ", but only 100 B are free" in result.stderr.splitlines()[-2]
    assert "--force skips this check" in result.stderr.splitlines()[-1]
    assert not (own_home / "cache").exists()
    assert run("pack", "build", recipe, "--data", toys, "--force").exit_code == 0


def test_too_small_a_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate_module, "available_memory", lambda: 2_000_000)
    estimate(tmp_path).check()
    with pytest.raises(errors.Unavailable, match=r"needs about 2\.1 MB of memory, but only 2\.0 MB are free") as error:
        estimate(tmp_path, memory=2_100_000).check()
    assert "tasks_at_once" in error.value.hint


def test_cache_and_pack_on_one_disk_are_added(tmp_path, monkeypatch, own_home):
    monkeypatch.setattr(estimate_module, "free_disk", lambda path: 100)
    monkeypatch.setattr(estimate_module, "cache_folder", lambda: tmp_path / "cache")
    estimate(tmp_path, cache_bytes=60, pack_bytes=40).check()
    with pytest.raises(errors.Unavailable, match="needs about 101 B"):
        estimate(tmp_path, cache_bytes=60, pack_bytes=41).check()


def test_the_estimate_for_a_person(tmp_path, monkeypatch, own_home):
    monkeypatch.setattr(estimate_module, "free_disk", lambda path: 5_000_000)
    monkeypatch.setattr(estimate_module, "available_memory", lambda: 3_000_000_000)
    assert estimate(tmp_path, memory=1_500_000_000).to_lines() == [
        "all  of it  about 2 min",
        "3 LoRAs, about 2 min on cpu, measured on a few steps",
        "memory: about 1.5 GB of 3.0 GB free",
        f"disk: {tmp_path / 'new/pack'}: 20 B, {own_home / 'cache'}: 10 B; 5.0 MB free",
    ]


def test_a_limited_build_is_quick_and_has_a_name_of_its_own(run, tiny, toys, recipe, own_home):
    result = run("pack", "build", recipe, "--data", toys, "--limit", 1)
    assert result.exit_code == 0, result.output
    manifest = json.loads((own_home / "cache/packs/toys-limit-1/pack.json").read_text())
    assert [task["key"] for task in Pack(own_home / "cache/packs/toys-limit-1").tasks] == [
        "toys/ball",
        "toys/jar",
        "toys/mug",
    ]
    assert manifest["prior"]["k"] == 1  # of one expert
    assert manifest["recipe"]["source"][0]["expert"] == ["ball"]
    assert not (own_home / "cache/packs/toys").exists()


def test_the_log_has_a_line_for_every_epoch(run, tiny, toys, recipe, tmp_path):
    log = tmp_path / "logs/build.jsonl"
    assert run("pack", "build", recipe, "--data", toys, "--log", log).exit_code == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines if line["step"] != "epoch"] == [
        "build",
        *["features"] * 11,
        "generator",
        "built",
    ]
    epochs = [(line["part"], line["epoch"], line["of"]) for line in lines if line["step"] == "epoch"]
    assert epochs[:6] == [("group 1 of 3", n, 6) for n in range(1, 7)]
    assert epochs[-30:] == [("joint", n, 30) for n in range(1, 31)]
    first = next(line for line in lines if line["step"] == "epoch")
    assert set(first["loss"]) == {"toys/ball", "toys/box", "toys/cup"}
    assert all(loss > 0 for loss in first["loss"].values())
    assert first["time"].endswith("+00:00")


def test_a_log_that_cannot_be_written_is_said(run, tiny, toys, recipe, tmp_path):
    (tmp_path / "file").touch()
    result = run("pack", "build", recipe, "--data", toys, "--log", tmp_path / "file/x.jsonl")
    assert result.exit_code == 6
    assert result.stderr.splitlines()[-1] == "hint: choose another file with --log"
