"""`sglora export`, `import`, `inspect` and `generate --format`, as their user sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from thirdparty.sglora_clipling import Clipling

from sglora_cli.adapter.file import load_adapter, save_adapter
from sglora_cli.adapter.write import FORMATS
from sglora_cli.lora.layout import Layout

MODEL = Clipling()
LAYOUT = Layout(MODEL.sites, 2, 3.0)
FLAT = 0.3 * torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mug(tmp_path: Path, clipling: None) -> Path:
    about = {"backbone": "clipling", "fingerprint": MODEL.fingerprint, "description": "a mug", "pack": "p"}
    save_adapter(tmp_path / "mug.safetensors", LAYOUT, FLAT, {**about, "generator": "cvae"})
    return tmp_path / "mug.safetensors"


OUT = {"safetensors": "o.safetensors", "peft": "o", "peft-flat": "o", "open_clip": "o.safetensors", "clip-lora": "o.pt"}


@pytest.mark.parametrize("name", FORMATS)
def test_out_and_in_again(run, mug, tmp_path, name):
    out = tmp_path / "there" / OUT[name]
    result = run("export", mug, "-o", out, "--format", name)
    assert (result.stdout, result.stderr, result.exit_code) == (f"{out}\n", "", 0)
    back = tmp_path / "back.safetensors"
    result = run("import", out, "-o", back, "--text", "a mug, again")
    assert (result.stdout, result.exit_code) == (f"{back}\n", 0), result.stderr
    found = load_adapter(back)
    assert found.about["description"] == "a mug, again"
    assert found.fingerprint == MODEL.fingerprint
    assert str(tmp_path) not in json.dumps(found.about)
    wanted = {n: 1.5 * b @ a for n, (b, a) in LAYOUT.split(FLAT).items()}
    for site, (b, a) in found.layout.split(found.flat_P).items():
        assert torch.allclose(found.layout.scaling * b @ a, wanted[site], atol=1e-5)
    assert torch.equal(found.flat_P, FLAT) == (name in ("safetensors", "peft", "peft-flat"))


def test_an_export_of_ours_names_its_backbone(run, mug, tmp_path, monkeypatch):
    run("export", mug, "-o", tmp_path / "o")
    run("export", mug, "-o", tmp_path / "o.pt")
    monkeypatch.setenv("SGLORA_BACKBONE", "starter")
    assert run("import", tmp_path / "o", "-o", tmp_path / "a.safetensors").exit_code == 0
    assert run("import", tmp_path / "o.pt", "-o", tmp_path / "b.safetensors").exit_code == 5
    assert run("import", tmp_path / "o.pt", "-o", tmp_path / "b.safetensors", "--backbone", "clipling").exit_code == 0


def test_the_ending_decides(run, mug, tmp_path):
    for name, out in (("peft", f"{tmp_path}/a.b/"), ("clip-lora", tmp_path / "a.pt"), ("peft", tmp_path / "plain")):
        result = run("export", mug, "-o", out, "--json")
        assert json.loads(result.stdout)["format"] == name
    assert (tmp_path / "a.b/adapter_config.json").exists()


def test_import_says_what_it_read(run, mug, tmp_path):
    run("export", mug, "-o", tmp_path / "mug.pt")
    result = run("import", tmp_path / "mug.pt", "-o", tmp_path / "in.safetensors", "--rank", 1)
    assert result.stderr.startswith(
        f"read       {tmp_path / 'mug.pt'} (clip-lora)\nrank       2 -> 1: the update changes by "
    )
    assert result.stderr.endswith("made for   weights unknown: the file has none\n")
    about = json.loads(run("inspect", tmp_path / "in.safetensors", "--json").stdout)
    assert about["imported"]["format"] == "clip-lora"
    assert 0.1 < about["imported"]["error"] < 0.9
    assert run("inspect", tmp_path / "in.safetensors").stdout.splitlines()[3] == (
        "made by    another program: imported from mug.pt (clip-lora)"
    )


@pytest.mark.parametrize("name", ["peft", "peft-flat", "clip-lora"])
def test_inspect_knows_every_format_without_the_backbone(run, mug, tmp_path, name):
    out = tmp_path / OUT[name]
    run("export", mug, "-o", out, "--format", name)
    known = name != "clip-lora"
    where = ("" if name == "peft-flat" else "vision_model.") + "encoder.layers.*.self_attn."
    order = "qkv" if name == "clip-lora" else "kqv"
    norm = float(LAYOUT.update_norm(FLAT))
    result = run("inspect", out)
    assert result.stdout.splitlines() == [
        f"adapter in format {name.removesuffix('-flat')} for {'a mug' if known else 'an unknown task'!r}",
        f"backbone   {'clipling, fingerprint clipling-1' if known else 'unknown, fingerprint unknown'}",
        "layout     rank 2, 36 sites, 2304 numbers",
        *(f"sites      {where}{letter}_proj" for letter in order),
        f"update     norm {norm:.3f}",
        "healthy    whole and finite",
    ]
    assert result.exit_code == 0
    assert json.loads(run("inspect", out, "--json").stdout)["ranks"] == [2]


def test_inspect_knows_a_merged_checkpoint(run, mug, tmp_path):
    run("export", mug, "-o", tmp_path / "m.safetensors", "--format", "open_clip")
    assert run("inspect", tmp_path / "m.safetensors").stdout.splitlines() == [
        "checkpoint with a merged update for 'a mug'",
        "backbone   clipling, fingerprint clipling-1",
        f"content    {len(MODEL.state)} tensors, {sum(x.numel() for x in MODEL.state.values())} numbers",
        "update     its difference to a backbone: `sglora import` finds it",
        "healthy    whole and finite",
    ]


def test_inspect_says_when_the_scaling_is_unknown(run, mug, tmp_path):
    from safetensors.torch import load_file, save_file

    save_file(load_file(mug), tmp_path / "bare.safetensors")
    result = run("inspect", tmp_path / "bare.safetensors")
    assert "if its lora_alpha is 1: there is no adapter_config.json beside it" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["-o", "o.bin"], 2, "an adapter is written as .safetensors, got o.bin", "try -o o.safetensors"),
        (["-o", "o", "--format", "pefd"], 3, "no format named 'pefd'", "did you mean 'peft'?"),
        (
            ["-o", "o.pt", "--format", "open_clip"],
            2,
            "format 'open_clip' is written as .safetensors, got o.pt",
            "try -o o.safetensors",
        ),
        (["-o", "mug.safetensors"], 2, "mug.safetensors exists", "choose another name, or pass --force to replace it"),
        (["-o", "full", "--force"], 2, "full has files that are not an adapter's: mine.txt", "choose another name"),
        (["-o", "full"], 2, "full exists", "choose another name, or pass --force to replace it"),
    ],
)
def test_a_place_that_cannot_be_written_to(run, mug, tmp_path, monkeypatch, arguments, code, message, hint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = run("export", "mug.safetensors", *arguments)
    assert result.stderr == f"error: {message}\nhint: {hint}\n"
    assert (result.exit_code, result.stdout) == (code, "")
    assert sorted(tmp_path.rglob("*")) == before


def test_force_replaces_an_adapter_folder(run, mug, tmp_path):
    for _ in range(2):
        assert run("export", mug, "-o", tmp_path / "o", "--force").exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mug.safetensors", "o"]


def test_a_strangers_file_is_sent_to_import(run, mug, tmp_path):
    run("export", mug, "-o", tmp_path / "o.pt")
    result = run("export", tmp_path / "o.pt", "-o", tmp_path / "p")
    assert result.exit_code == 4
    from safetensors.torch import load_file, save_file

    save_file(load_file(mug), tmp_path / "bare.safetensors")
    result = run("export", tmp_path / "bare.safetensors", "-o", tmp_path / "p")
    assert result.stderr.endswith("not an adapter of sglora\nhint: read it with `sglora import`\n")


def test_generate_writes_folders(run, toy_pack, tmp_path):
    result = run("generate", "a mug", "-o", f"{tmp_path}/mug/", "--samples", 2)
    assert result.stdout == f"{tmp_path}/mug-0\n{tmp_path}/mug-1\n"
    assert (tmp_path / "mug-1/adapter_model.safetensors").exists()
    assert load_adapter(tmp_path / "mug-1/adapter_model.safetensors").about["description"] == "a mug"
    result = run("generate", "a mug", "-o", f"{tmp_path}/mug/", "--samples", 2)
    assert result.stderr.endswith(
        f"error: {tmp_path}/mug-0 exists\nhint: choose another name, or pass --force to replace it\n"
    )


def test_generate_refuses_what_the_backbone_cannot(run, toy_pack, tmp_path):
    result = run("generate", "a mug", "-o", tmp_path / "mug.pt")
    assert result.exit_code == 5
    assert result.stderr.endswith(
        "error: CLIP-LoRA's format holds q, k and v of all blocks of a CLIP only\nhint: use --format peft\n"
    )
    assert (
        run("generate", "a mug", "--format", "peft").stderr
        == "error: --format needs a place to write to\nhint: pass -o\n"
    )
    assert not list(tmp_path.glob("*mug*"))


def test_their_help_needs_no_torch():
    import subprocess
    import sys

    code = "import sys; from click.testing import CliRunner; from sglora_cli.cli.main import main\n"
    for name in ("export", "import"):
        code += f"assert CliRunner().invoke(main, [{name!r}, '--help']).exit_code == 0\n"
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)
