"""Attempts at making a file have unfinished files of their own, and start from the newest of the others."""

from __future__ import annotations

import os

import pytest
import torch

from sglora_cli.errors import Unavailable
from sglora_cli.files.attempts import attempt, needs_lock, own_path
from sglora_cli.files.tensor_rows import TensorDraft, TensorRows
from sglora_cli.files.tensors import Checkpoint

SHAPES = {"rows": (torch.float32, (3, 2))}


def work(target, rows, stop=False):
    """Write rows that are not written yet, with a checkpoint after each. Returns the rows that were written."""
    draft = TensorDraft(target, SHAPES, {"kind": "toy"})
    checkpoint = Checkpoint(target.with_suffix(".checkpoint"), draft.sync)
    saved = checkpoint.load() if draft.resumed else None
    first = int(saved[0]["done"]) if saved else 0
    for row in range(first, rows):
        draft.put("rows", row, torch.full((1, 2), float(row)))
        checkpoint.save({"done": torch.tensor([row + 1])})
    if stop:
        draft.close()
        raise KeyboardInterrupt
    draft.finish()
    checkpoint.drop()
    return list(range(first, rows))


def interrupted(target, name, rows):
    with pytest.raises(KeyboardInterrupt), attempt(target, name):
        work(target, rows, stop=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("second", ["", "b"])
@pytest.mark.parametrize("first", ["", "a"])
def test_an_attempt_starts_from_the_one_before(tmp_path, first, second):
    target = tmp_path / "states.safetensors"
    interrupted(target, first, 2)
    assert names(tmp_path) == (
        ["states.a.checkpoint", "states.a.safetensors.part"]
        if first
        else ["states.checkpoint", "states.safetensors.part"]
    )
    with attempt(target, second):
        assert work(target, 3) == [2]
    assert names(tmp_path) == ["states.safetensors"]
    rows = TensorRows(target, "rows")
    rows.check()
    assert torch.equal(rows.to("cpu"), torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]))


def test_the_newest_checkpoint_is_used(tmp_path):
    target = tmp_path / "states.safetensors"
    for seconds, (name, rows) in enumerate([("a", 2), ("b", 1)]):
        other = tmp_path / name
        other.mkdir()
        interrupted(other / target.name, name, rows)
        for path in other.iterdir():
            os.utime(path, (seconds, seconds))
            path.rename(tmp_path / path.name)
        other.rmdir()
    with attempt(target, "c"):
        assert work(target, 3) == [1, 2]


def test_two_attempts_at_once_do_not_meet(tmp_path):
    target = tmp_path / "states.safetensors"
    with attempt(target, "a"):
        slow = TensorDraft(target, SHAPES, {"kind": "toy"})
        slow.put("rows", 0, torch.zeros(1, 2))
    assert names(tmp_path) == []  # another attempt at making the file was faster
    with attempt(target, "b"):
        work(target, 3)
    before = target.read_bytes()
    with pytest.raises(Unavailable, match="No such file"):
        slow.finish()
    assert target.read_bytes() == before


def test_a_damaged_checkpoint_is_not_used(tmp_path):
    target = tmp_path / "states.safetensors"
    interrupted(target, "a", 2)
    (tmp_path / "states.a.checkpoint").write_bytes(b"nonsense")
    with attempt(target, "b"):
        assert work(target, 3) == [0, 1, 2]


def test_files_of_other_targets_are_left_alone(tmp_path):
    interrupted(tmp_path / "other.safetensors", "a", 1)
    target = tmp_path / "states.safetensors"
    with attempt(target, "b"):
        assert own_path(tmp_path / "other.checkpoint").name == "other.checkpoint"
        assert own_path(target.with_suffix(".checkpoint")).name == "states.b.checkpoint"
        work(target, 3)
    assert names(tmp_path) == ["other.a.checkpoint", "other.a.safetensors.part", "states.safetensors"]


def test_only_named_attempts_need_no_lock(tmp_path):
    target = tmp_path / "states.safetensors"
    assert needs_lock(target)
    with attempt(target, ""):
        assert needs_lock(target)
    with attempt(target, "a"):
        assert not needs_lock(target)
        assert needs_lock(tmp_path / "other")
