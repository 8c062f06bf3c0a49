"""Adapters of other programs as files of ours, and back."""

from __future__ import annotations

import json

import pytest
import torch
from mugs import FLAT, LAYOUT, MODEL, OUT

from sglora_cli.adapter.file import load_adapter
from sglora_cli.adapter.formats import FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_out_and_in_again(run, mug, tmp_path, name):
    out = tmp_path / "there" / OUT[name]
    result = run("export", mug, "-o", out, "--format", name)
    assert (result.stdout, result.stderr, result.exit_code) == (f"{out}\n", "", 0)
    back = tmp_path / "back.safetensors"
    result = run("import", out, "-o", back, "--text", "a mug, again")
    assert (result.stdout, result.exit_code) == (f"{back}\n", 0), result.stderr
    adapter = load_adapter(back)
    assert adapter.metadata["description"] == "a mug, again"
    assert adapter.fingerprint == MODEL.fingerprint
    assert str(tmp_path) not in json.dumps(adapter.metadata)
    wanted = {n: 1.5 * b @ a for n, (b, a) in LAYOUT.split(FLAT).items()}
    for site, (b, a) in adapter.layout.split(adapter.flat_P).items():
        assert torch.allclose(adapter.layout.scaling * b @ a, wanted[site], atol=1e-5)
    assert torch.equal(adapter.flat_P, FLAT) == (name in ("safetensors", "peft", "peft-flat"))


def test_an_export_of_ours_names_its_backbone(run, mug, tmp_path, monkeypatch):
    run("export", mug, "-o", tmp_path / "o")
    run("export", mug, "-o", tmp_path / "o.pt")
    monkeypatch.setenv("SGLORA_BACKBONE", "starter")
    assert run("import", tmp_path / "o", "-o", tmp_path / "a.safetensors").exit_code == 0
    assert run("import", tmp_path / "o.pt", "-o", tmp_path / "b.safetensors").exit_code == 0
    result = run("import", tmp_path / "o.pt", "-o", tmp_path / "c.safetensors", "--backbone", "starter")
    assert result.exit_code == 5
    assert "fingerprint" in result.stderr


def test_import_says_what_it_read(run, mug, tmp_path):
    run("export", mug, "-o", tmp_path / "mug.pt")
    result = run("import", tmp_path / "mug.pt", "-o", tmp_path / "in.safetensors", "--rank", 1)
    assert result.stderr.startswith(
        f"read       {tmp_path / 'mug.pt'} (clip-lora)\nrank       2 -> 1, the update changes by "
    )
    assert result.stderr.endswith("made for   the backbone's weights\n")
    metadata = json.loads(run("inspect", tmp_path / "in.safetensors", "--json").stdout)
    assert metadata["imported"]["format"] == "clip-lora"
    assert 0.1 < metadata["imported"]["error"] < 0.9
    assert run("inspect", tmp_path / "in.safetensors").stdout.splitlines()[3] == (
        "made by    another program, imported from mug.pt (clip-lora)"
    )


def test_a_file_that_changes_while_it_is_read_is_not_imported(run, mug, tmp_path, monkeypatch):
    from sglora_cli.adapter import convert

    run("export", mug, "-o", tmp_path / "mug.pt")
    read = convert.read_adapter

    def swaps(*args, **kwargs):
        foreign = read(*args, **kwargs)
        (tmp_path / "mug.pt").write_bytes(b"something else")
        return foreign

    monkeypatch.setattr(convert, "read_adapter", swaps)
    result = run("import", tmp_path / "mug.pt", "-o", tmp_path / "in.safetensors")
    assert (result.exit_code, result.stdout) == (4, "")
    assert (
        result.stderr
        == f"error: {tmp_path / 'mug.pt'} was changed while it was read\nhint: run the same command again\n"
    )
    assert not (tmp_path / "in.safetensors").exists()
