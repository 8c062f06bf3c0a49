"""Rows of a file on disk are those of the tensor in memory, and a draft goes on where it was left."""

from __future__ import annotations

import pytest
import torch

from sglora_cli.errors import BadFile, Unavailable
from sglora_cli.files.tensor_rows import TensorDraft, TensorRows
from sglora_cli.files.tensors import load_tensors, save_tensors

STEM, TEXT = torch.randn(5, 3, 2).half(), torch.randn(7, 4)
SHAPES = {"stem": (torch.float16, STEM.shape), "text": (torch.float32, TEXT.shape)}


@pytest.fixture
def file(tmp_path):
    save_tensors(tmp_path / "x.safetensors", {"stem": STEM, "text": TEXT, "ids": torch.arange(3)}, {})
    return tmp_path / "x.safetensors"


def test_rows_are_those_of_the_tensor(file):
    rows = TensorRows(file, "stem")
    assert (len(rows), rows.shape, rows.dtype) == (5, (5, 3, 2), torch.float16)
    assert torch.equal(rows[[4, 0, 0, -1]], STEM[[4, 0, 0, -1]])
    assert torch.equal(rows[2], STEM[2])
    assert torch.equal(rows.to("cpu"), STEM)
    assert torch.equal(torch.stack(list(TensorRows(file, "text"))), TEXT)
    assert rows[[]].shape == (0, 3, 2)
    with pytest.raises(IndexError):
        rows[5]


@pytest.mark.parametrize("name", ["ids", "absent"])
def test_what_has_no_rows_of_numbers_is_refused(file, name):
    with pytest.raises(BadFile, match=f"no tensor '{name}' of floating point numbers"):
        TensorRows(file, name)


def test_a_file_cut_short_is_refused(file):
    file.write_bytes(file.read_bytes()[:-3])
    TensorRows(file, "text")  # its numbers come first and are whole
    with pytest.raises(BadFile, match="'stem' of shape \\[5, 3, 2\\] is not whole"):
        TensorRows(file, "stem")


def test_a_draft_written_in_pieces_is_the_file_saved_at_once(tmp_path):
    target, metadata = tmp_path / "new/y.safetensors", {"kind": "test"}
    draft = TensorDraft(target, SHAPES, metadata)
    draft.put("text", 2, TEXT[2:])
    draft.put("stem", 0, STEM[:4])
    draft.close()
    assert not target.exists()
    again = TensorDraft(target, SHAPES, metadata)  # another process goes on
    again.put("stem", 4, STEM[4].float()[None])
    again.put("text", 0, TEXT[:2])
    again.finish()
    save_tensors(tmp_path / "z.safetensors", {"stem": STEM, "text": TEXT}, metadata)
    assert target.read_bytes() == (tmp_path / "z.safetensors").read_bytes()
    assert load_tensors(target)[1] == metadata
    assert list(target.parent.iterdir()) == [target]


def test_a_draft_of_other_shapes_starts_over(tmp_path):
    target = tmp_path / "y.safetensors"
    other = TensorDraft(target, {"stem": (torch.float16, (99, 2))}, {})
    other.put("stem", 0, torch.ones(99, 2))
    other.close()
    draft = TensorDraft(target, SHAPES, {})
    draft.finish()
    assert not load_tensors(target)[0]["stem"].any()


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"cannot write .*y\.safetensors\.part") as error:
        TensorDraft(tmp_path / "file/y.safetensors", SHAPES, {})
    assert "what is done is kept" in error.value.hint
