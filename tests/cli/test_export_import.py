"""`sglora export`, `import` and `generate --format`, as their user sees them."""

from __future__ import annotations

import json

import pytest

from sglora_cli.adapter.file import load_adapter


def test_the_ending_decides(run, mug, tmp_path):
    for name, out in (("peft", f"{tmp_path}/a.b/"), ("clip-lora", tmp_path / "a.pt"), ("peft", tmp_path / "plain")):
        result = run("export", mug, "-o", out, "--json")
        assert json.loads(result.stdout)["format"] == name
    assert (tmp_path / "a.b/adapter_config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["-o", "o.bin"], 2, "the suffix of an adapter file must be .safetensors, got o.bin", "try -o o.safetensors"),
        (["-o", "o", "--format", "pefd"], 3, "no format named 'pefd'", "did you mean 'peft'?"),
        (
            ["-o", "o.pt", "--format", "open_clip"],
            2,
            "the suffix of format 'open_clip' must be .safetensors, got o.pt",
            "try -o o.safetensors",
        ),
        (["-o", "mug.safetensors"], 2, "mug.safetensors exists", "choose another name, or pass --force to replace it"),
        (
            ["-o", "full", "--force"],
            2,
            "full has files that do not belong to an adapter: mine.txt",
            "choose another name",
        ),
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


def test_a_folder_is_written_where_a_link_leads(run, mug, tmp_path):
    real, link = tmp_path / "disk/o", tmp_path / "o"
    link.symlink_to(real)
    for _ in range(2):
        assert run("export", mug, "-o", link, "--force").exit_code == 0
        assert link.is_symlink()
        assert (real / "adapter_config.json").is_file()
    assert sorted(path.name for path in real.parent.iterdir()) == ["o"]


def test_a_strangers_file_is_sent_to_import(run, mug, tmp_path):
    run("export", mug, "-o", tmp_path / "o.pt")
    result = run("export", tmp_path / "o.pt", "-o", tmp_path / "p")
    assert result.exit_code == 4
    from safetensors.torch import load_file, save_file

    save_file(load_file(mug), tmp_path / "bare.safetensors")
    result = run("export", tmp_path / "bare.safetensors", "-o", tmp_path / "p")
    hint = f"convert it with: sglora import {tmp_path / 'bare.safetensors'} -o NEW.safetensors"
    assert result.stderr.endswith(f"not an adapter of sglora\nhint: {hint}\n")


def test_generate_writes_folders(run, toy_pack, tmp_path):
    result = run("generate", "a mug", "-o", f"{tmp_path}/mug/", "--samples", 2)
    assert result.stdout == f"{tmp_path}/mug-0\n{tmp_path}/mug-1\n"
    assert (tmp_path / "mug-1/adapter_model.safetensors").exists()
    assert load_adapter(tmp_path / "mug-1/adapter_model.safetensors").metadata["description"] == "a mug"
    result = run("generate", "a mug", "-o", f"{tmp_path}/mug/", "--samples", 2)
    assert result.stderr.endswith(
        f"error: {tmp_path}/mug-0 exists\nhint: choose another name, or pass --force to replace it\n"
    )


def test_generate_refuses_what_the_backbone_cannot(run, toy_pack, tmp_path):
    result = run("generate", "a mug", "-o", tmp_path / "mug.pt")
    assert result.exit_code == 5
    assert result.stderr.endswith(
        "error: CLIP-LoRA's format supports only q, k and v of all blocks of a CLIP\nhint: use --format peft\n"
    )
    assert (
        run("generate", "a mug", "--format", "peft").stderr == "error: --format requires -o\nhint: pass -o FILE too\n"
    )
    assert not list(tmp_path.glob("*mug*"))


def test_their_help_needs_no_torch():
    import subprocess
    import sys

    code = "import sys; from click.testing import CliRunner; from sglora_cli.cli.main import main\n"
    for name in ("export", "import"):
        code += f"assert CliRunner().invoke(main, [{name!r}, '--help']).exit_code == 0\n"
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)
