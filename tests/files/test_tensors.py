"""Files: whole or absent, same content same bytes, nothing foreign gets through."""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import pytest
import torch

from sglora_cli.adapter.file import load_adapter, save_adapter
from sglora_cli.errors import BadFile, Mismatch, Unavailable
from sglora_cli.files.atomic import write_bytes
from sglora_cli.files.images import read_image
from sglora_cli.files.tensors import load_tensors, read_metadata, read_tensors, save_tensors
from sglora_cli.files.untrusted import inside
from sglora_cli.lora.layout import Layout, Site

LAYOUT = Layout((Site("q", 5, 4), Site("k", 3, 4)), rank=2, alpha=3.0)


def test_equal_content_gives_equal_bytes_in_every_process(tmp_path):
    code = (
        "import sys, torch; from pathlib import Path; from sglora_cli.files.tensors import save_tensors\n"
        "save_tensors(Path(sys.argv[1]), {'b': torch.ones(3), 'a': torch.zeros(2)}, {'y': 1, 'x': [2]})"
    )
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    target = tmp_path / "a"
    write_bytes(target, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left on device"):
        write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 10**12) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"{,,}",
        b"PK\3\4" + bytes(50),
    ],
)
def test_what_is_not_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadFile, match="safetensors"):
        load_tensors(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BadFile, match="not a complete safetensors file"):
        load_tensors(path)


def test_tensors_that_are_read_stay_as_they_were_whatever_becomes_of_their_file(tmp_path):
    path, tensors = tmp_path / "x.safetensors", {f"{kind}.{n}": torch.full((3,), n) for n in range(40) for kind in "ab"}
    save_tensors(path, tensors, {})
    found = read_tensors(path, lambda name: name.startswith("a"))
    path.write_bytes(bytes(path.stat().st_size))  # in place, as `cp` does it
    assert found.keys() == {f"a.{n}" for n in range(40)}
    assert all(torch.equal(found[name], tensors[name]) for name in found)
    assert found["a.0"].dtype == torch.int64


def test_an_adapter_comes_back_as_it_was(tmp_path):
    flat = torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(0))
    save_adapter(tmp_path / "a.safetensors", LAYOUT, flat, {"fingerprint": "f"})
    adapter = load_adapter(tmp_path / "a.safetensors")
    assert torch.equal(adapter.flat_P, flat)
    assert adapter.layout == LAYOUT
    names = set(load_tensors(tmp_path / "a.safetensors")[0])
    assert "base_model.model.q.lora_A.weight" in names
    assert "base_model.model.k.lora_B.weight" in names


def test_numbers_that_are_not_finite_are_neither_written_nor_read(tmp_path):
    flat = torch.full((LAYOUT.size,), float("nan"))
    with pytest.raises(Mismatch, match="not finite"):
        save_adapter(tmp_path / "a.safetensors", LAYOUT, flat, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "kind"])
def test_an_adapter_with_wrong_tensors_is_refused(tmp_path, change):
    path = tmp_path / "a.safetensors"
    save_adapter(path, LAYOUT, torch.ones(LAYOUT.size), {})
    tensors, metadata = load_tensors(path)
    name = "base_model.model.q.lora_A.weight"
    if change == "missing":
        del tensors[name]
    elif change == "extra":
        tensors["other"] = torch.ones(1)
    elif change == "shape":
        tensors[name] = torch.ones(3, 4)
    else:
        metadata = {}
    save_tensors(path, tensors, metadata)
    with pytest.raises(BadFile, match=r"lacks tensor|belongs to no site|has shapes|not an adapter of sglora"):
        load_adapter(path)


def test_an_adapter_meets_only_its_own_model_and_never_as_a_no_op(tmp_path):
    class Model:
        fingerprint, sites = "f", LAYOUT.sites

    path = tmp_path / "a.safetensors"
    save_adapter(path, LAYOUT, torch.ones(LAYOUT.size), {"fingerprint": "g"})
    with pytest.raises(Mismatch, match="made for a backbone with fingerprint g, this one has f"):
        load_adapter(path).check_model(Model())
    save_adapter(path, LAYOUT, LAYOUT.initial(0), {"fingerprint": "f"})
    with pytest.raises(Mismatch, match="it would change nothing"):
        load_adapter(path).check_model(Model())


def test_metadata_that_is_not_json_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors", metadata={"sglora": "{"})
    with pytest.raises(BadFile, match="metadata is not JSON"):
        read_metadata(tmp_path / "x.safetensors")


def test_no_name_leads_out_of_its_folder(tmp_path):
    for name in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(BadFile, match="leads out of"):
            inside(tmp_path, name)
    assert inside(tmp_path, "a/b") == (tmp_path / "a/b").resolve()


def test_images_that_cannot_be_decoded_are_named(tmp_path):
    path = tmp_path / "x.jpg"
    with pytest.raises(BadFile, match=r"x\.jpg does not exist"):
        read_image(path)
    path.write_bytes(b"\xff\xd8\xff\xe0 nothing")
    with pytest.raises(BadFile, match=r"x\.jpg cannot be decoded"):
        read_image(path)
