"""PyTorch files: what torch.save writes is read as torch reads it, and no other program is run."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch

from sglora_cli.adapter import read, torch_files
from sglora_cli.adapter.torch_files import load_pickle
from sglora_cli.errors import BadFile

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
DTYPES += [torch.complex64, torch.float8_e4m3fn]
ZIP_AND_STREAM = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one.double(), other.double())
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


def state() -> OrderedDict:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2)).half().state_dict()


CONTENTS = {
    "a state": state,
    "parameters": lambda: {"x": torch.nn.Parameter(torch.ones(2, 3))},
    "views": lambda: (lambda x: {"x": x, "t": x.T, "row": x[1], "step": x[:, ::2]})(torch.randn(3, 4)),
    "nothing": lambda: {"x": torch.ones(0, 4), "one": torch.tensor(2.5)},
    "tables": lambda: {
        "state_dict": state(),
        "epoch": 3,
        "lr": [0.1, (1, None)],
        "name": "é",
        "on": True,
        "off": False,
    },
    "clip-lora": lambda: {
        "weights": {"layer_0": {"q_proj": {"w_lora_A": torch.randn(2, 4), "w_lora_B": torch.randn(4, 2)}}},
        "metadata": {"r": 2, "alpha": 1, "encoder": "vision", "params": ["q"], "position": "all"},
    },
    "long": lambda: {str(n): torch.full((1,), float(n)) for n in range(400)},
    "large numbers": lambda: {"x": 2**40, "y": -(2**40)},
}


@ZIP_AND_STREAM
@pytest.mark.parametrize("case", CONTENTS)
def test_what_torch_saves_is_read(tmp_path, case, zipped):
    content = CONTENTS[case]()
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    theirs = torch.load(tmp_path / "x.pt", weights_only=True)
    assert equal(load_pickle(tmp_path / "x.pt"), theirs)


@ZIP_AND_STREAM
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_of_number_is_read(tmp_path, dtype, zipped):
    x = torch.tensor([[0, 1, 0], [1, 1, 0]]).to(dtype)
    torch.save({"x": x}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = load_pickle(tmp_path / "x.pt")["x"]
    assert found.dtype == dtype
    assert found.untyped_storage().tolist() == x.untyped_storage().tolist()


class Called:
    """A value whose pickle calls something."""

    def __init__(self, call, *arguments) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


CALLS = {
    "a counter of nothing": lambda: Counter(),
    "a counter of many": lambda: Called(Counter, Called(bytearray, 10**10)),
    "bytes": lambda: Called(bytearray, 10**10),
    "memory that nobody set": lambda: Called(torch.FloatTensor, 4, 192),
    "a table from pairs": lambda: Called(OrderedDict, [["x", 1]]),
    "a set": lambda: {1, 2},
    "bytes of text": lambda: b"123",
    "a device": lambda: torch.device("cpu"),
    "sparse": lambda: torch.ones(2, 2).to_sparse(),
    "a program": lambda: Called(print, "called"),
}


@ZIP_AND_STREAM
@pytest.mark.parametrize("case", CALLS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_that_a_pickle_names_is_called(tmp_path, capsys, case, zipped):
    torch.save({"x": CALLS[case]()}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadFile, match="is a pickle of more than plain tensors"):
        load_pickle(tmp_path / "x.pt")
    assert capsys.readouterr().out == ""


def test_a_bare_pickle_is_no_pytorch_file(tmp_path):
    (tmp_path / "x.bin").write_bytes(pickle.dumps({"x": Called(bytearray, 10**10)}, protocol=2))
    with pytest.raises(BadFile):
        load_pickle(tmp_path / "x.bin")


def changed(content: bytes, record: str, change) -> bytes:
    """An archive with one record changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name.endswith(record) else old.read(name))
    return out.getvalue()


@ZIP_AND_STREAM
def test_a_storage_is_no_longer_than_the_file_has_it(tmp_path, zipped):
    file = io.BytesIO()
    torch.save({"x": torch.zeros(70_000)}, file, _use_new_zipfile_serialization=zipped)

    def longer(data: bytes) -> bytes:
        number = (70_000).to_bytes(4, "little")
        assert number in data
        return data.replace(number, (2_000_000_000).to_bytes(4, "little"))

    content = changed(file.getvalue(), "data.pkl", longer) if zipped else longer(file.getvalue())
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(BadFile, match=r"storage .* (not 2000000000 numbers|is larger than the file)"):
        load_pickle(tmp_path / "x.pt")


def test_strides_do_not_repeat_numbers(tmp_path):
    torch.save({"x": torch.ones(1).expand(10**7, 10**7)}, tmp_path / "x.pt")
    with pytest.raises(BadFile, match=r"a tensor of shape .* with 4 bytes of numbers"):
        load_pickle(tmp_path / "x.pt")


@ZIP_AND_STREAM
def test_every_cut_of_a_file_is_refused(tmp_path, zipped):
    file = io.BytesIO()
    torch.save({"x": torch.ones(3)}, file, _use_new_zipfile_serialization=zipped)
    for size in range(2, len(file.getvalue()) - 1, 7):
        (tmp_path / "x.pt").write_bytes(file.getvalue()[:size])
        with pytest.raises(BadFile):
            load_pickle(tmp_path / "x.pt")


def test_an_adapter_is_read_once(tmp_path, monkeypatch):
    torch.save(CONTENTS["clip-lora"](), tmp_path / "x.pt")
    calls = []

    def counted(path, *limit):
        calls.append(path)
        return torch_files.load_pickle(path, *limit)

    monkeypatch.setattr(read, "load_pickle", counted)
    monkeypatch.setattr(read.checkpoint, "load_pickle", counted)
    read.read_adapter(tmp_path / "x.pt")
    assert calls == [tmp_path / "x.pt"]
