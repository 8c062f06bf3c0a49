"""Rows of a file on disk are those of the tensor in memory, and a draft goes on where it was left."""

from __future__ import annotations

import os
import zlib

import pytest
import torch

from sglora_cli.errors import BadFile, Unavailable
from sglora_cli.files import tensor_rows
from sglora_cli.files.tensor_rows import TensorDraft, TensorRows
from sglora_cli.files.tensors import load_tensors, save_tensors

STEM, TEXT = torch.randn(5, 3, 2).half(), torch.randn(7, 4)
SHAPES = {"stem": (torch.float16, STEM.shape), "text": (torch.float32, TEXT.shape)}


def sums(file: str, name: str, rows: torch.Tensor) -> torch.Tensor:
    """CRC-32 of the names, the number and the bytes of each row, one text."""
    texts = [f"{file} {name} {n}".encode() + row.numpy().tobytes() for n, row in enumerate(rows)]
    return torch.tensor([zlib.crc32(text) for text in texts])


def saved(path, **changes):
    """The file at once, by safetensors itself."""
    tensors = {"stem": STEM, "text": TEXT}
    tensors |= {f"{name}.sums": sums(path.stem, name, rows) for name, rows in tensors.items()}
    save_tensors(path, {**tensors, **changes}, {"kind": "test"})
    return path


@pytest.fixture
def file(tmp_path):
    return saved(tmp_path / "x.safetensors", ids=torch.arange(3))


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
    with pytest.raises(BadFile, match=f"no tensor '{name}' of floating-point numbers"):
        TensorRows(file, name)


def test_a_file_cut_short_is_refused(file):
    file.write_bytes(file.read_bytes()[:-3])
    TensorRows(file, "text")  # its numbers come before and are whole
    with pytest.raises(BadFile, match="'stem' of shape \\[5, 3, 2\\] is incomplete"):
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
    assert target.read_bytes() == saved(tmp_path / "y.safetensors").read_bytes()
    assert load_tensors(target)[1] == metadata
    assert list(target.parent.iterdir()) == [target]


def test_any_byte_that_changes_is_noticed_when_its_row_is_read(file):
    """Wherever it is: in numbers, checksums, or in the table that says where they stand."""
    whole = file.read_bytes()
    for place in [*range(8, len(whole), 11), *range(len(whole) - 60, len(whole))]:
        data = bytearray(whole)
        data[place] ^= 0x10
        file.write_bytes(data)
        try:
            rows = {name: TensorRows(file, name) for name in ("stem", "text")}
            for one in rows.values():
                one.check()
        except BadFile:
            continue
        assert (rows["stem"].to("cpu").shape, rows["text"].to("cpu").shape) == (STEM.shape, TEXT.shape)
        assert torch.equal(rows["stem"].to("cpu"), STEM)  # a byte of `ids`, of the metadata or a blank
        assert torch.equal(rows["text"].to("cpu"), TEXT)


def test_only_the_row_that_changed_is_refused(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    rows = TensorRows(file, "stem")
    assert torch.equal(rows[[0, 1, 2, 3]], STEM[:4])
    with pytest.raises(BadFile, match=r"x\.safetensors: row 4 of 'stem' is damaged") as error:
        rows[4]
    assert error.value.hint == "run the command again to recreate it"


@pytest.mark.parametrize(
    "changes",
    [
        {"stem": STEM[[1, 0, 2, 3, 4]]},
        {"stem": torch.full_like(STEM, float("nan"))},
        {"stem": STEM[:4]},
        {"stem.sums": torch.zeros(4, dtype=torch.int64)},
        {"stem.sums": torch.zeros(5)},
    ],
    ids=["rows exchanged", "NaN", "a row less", "checksums less", "checksums of another type"],
)
def test_rows_that_are_not_those_of_the_checksums_are_refused(file, changes):
    saved(file, **changes)
    with pytest.raises(BadFile):
        TensorRows(file, "stem").check()


def test_a_file_in_another_ones_place_is_refused(file):
    file.rename(file.with_name("y.safetensors"))
    with pytest.raises(BadFile, match="row 0 of 'stem' is damaged"):
        TensorRows(file.with_name("y.safetensors"), "stem").check()


def test_a_file_is_checked_once_and_again_when_it_changes(file, monkeypatch):
    read, real = [], tensor_rows.TensorRows._read
    monkeypatch.setattr(tensor_rows.TensorRows, "_read", lambda *args: (read.append(args[0].name), real(*args)))
    TensorRows(file, "stem").check()
    TensorRows(file, "stem").check()
    assert read == ["stem"]
    saved(file.with_name("z"))
    os.replace(file.with_name("z"), file)
    with pytest.raises(BadFile):
        TensorRows(file, "stem").check()


def test_a_draft_that_was_damaged_between_two_processes_is_not_finished(tmp_path):
    target = tmp_path / "x.safetensors"
    draft = TensorDraft(target, SHAPES, {})
    draft.put("stem", 0, STEM)
    draft.close()
    data = bytearray(draft.path.read_bytes())
    data[-3] ^= 1
    draft.path.write_bytes(data)
    again = TensorDraft(target, SHAPES, {})
    again.put("text", 0, TEXT)
    with pytest.raises(BadFile, match="is damaged"):
        again.finish()
    assert list(tmp_path.iterdir()) == []


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
    assert "completed work is kept" in error.value.hint
