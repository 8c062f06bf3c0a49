"""`sglora inspect`, as its user sees it."""

from __future__ import annotations

import json

import pytest
from mugs import FLAT, LAYOUT, MODEL, OUT
from safetensors.torch import load_file, save_file


def forget_provenance(path):
    """The tensors of a file without what the program wrote beside them."""
    save_file(load_file(path), path)


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
        "backbone   clipling, fingerprint clipling-1",
        "layout     rank 2, 36 sites, 2304 parameters",
        *(f"sites      {where}{letter}_proj" for letter in order),
        f"update     norm {norm:.3f}",
        "healthy    complete and finite",
    ]
    assert result.exit_code == 0
    assert json.loads(run("inspect", out, "--json").stdout)["ranks"] == [2]


def test_inspect_knows_a_merged_checkpoint(run, mug, tmp_path):
    run("export", mug, "-o", tmp_path / "m.safetensors", "--format", "open_clip")
    assert run("inspect", tmp_path / "m.safetensors").stdout.splitlines() == [
        "checkpoint with a merged update for 'a mug'",
        "backbone   clipling, fingerprint clipling-1",
        f"content    {len(MODEL.state)} tensors, {sum(x.numel() for x in MODEL.state.values())} parameters",
        "update     the difference to a backbone; extract it with `sglora import FILE -o NEW.safetensors`",
        "healthy    complete and finite",
    ]


def test_inspect_says_when_the_scaling_is_unknown(run, mug, tmp_path):
    save_file(load_file(mug), tmp_path / "bare.safetensors")
    result = run("inspect", tmp_path / "bare.safetensors")
    assert "assuming lora_alpha 1, because there is no adapter_config.json beside it" in result.stdout


def test_inspect_shows_the_base_of_a_foreign_adapter_and_what_it_lacks(run, mug, tmp_path):
    run("export", mug, "-o", tmp_path / "peft", "--format", "peft")
    config = tmp_path / "peft" / "adapter_config.json"
    targets = {"target_modules": ["q_proj", "k_proj", "v_proj", "out_proj"]}
    base = {
        "base_model_name_or_path": "openai/clip-vit-base-patch32",
        "auto_mapping": {"base_model_class": "CLIPModel"},
    }
    config.write_text(json.dumps({**json.loads(config.read_text()), **targets, **base}))
    forget_provenance(tmp_path / "peft" / "adapter_model.safetensors")
    lines = run("inspect", tmp_path / "peft").stdout.splitlines()
    assert "base       openai/clip-vit-base-patch32, a CLIPModel" in lines
    assert "damaged    no update of 'out_proj' (target_modules)" in lines
    facts = json.loads(run("inspect", tmp_path / "peft", "--json").stdout)
    assert facts["base"]["name"] == "openai/clip-vit-base-patch32"
    assert facts["lacks"] == ["'out_proj' (target_modules)"]


def test_an_exported_pack_is_to_be_imported_first(run, toy_pack, tmp_path):
    archive = tmp_path / "t.sglora.zip"
    assert run("pack", "export", "toys", "-o", archive).exit_code == 0
    result = run("inspect", archive)
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: {archive} is an exported pack\nhint: sglora pack import {archive}\n",
    )
    result = run("pack", "show", archive)
    assert (result.exit_code, result.stderr) == (
        3,
        f"error: {archive} is a file, not a pack\nhint: import an exported pack first: sglora pack import {archive}\n",
    )


def test_a_recipe_is_its_sources_and_the_numbers_that_are_not_the_default(run, recipe):
    assert run("inspect", recipe).stdout.splitlines()[:4] == [
        "recipe toys: toys",
        "backbone   tiny",
        "template   'a photo of a {name}'",
        "default    cvae",
    ]
    rows = [line.split() for line in run("inspect", recipe).stdout.splitlines()]
    assert ["toys", "folder", "toys", "4", "3", "2"] in rows
    assert ["train.epochs", "6", "120", "Passes", "over", "a", "task's", "photos."] in rows
    assert not any(row and row[0] == "lora.alpha" for row in rows)
    every = [line.split() for line in run("inspect", recipe, "--all").stdout.splitlines()]
    assert ["lora.alpha", "2.0", "2.0"] in [row[:3] for row in every]
    changed = [row[0] for row in rows if row and row[0].startswith(("train.", "lora.", "prior."))]
    numbers = [row[0] for row in every if row and row[0].startswith(("train.", "lora.", "prior."))]
    assert numbers[: len(changed)] == changed
    rest = f"{len(numbers) - len(changed)} other settings at the default (list them with --all)"
    assert run("inspect", recipe).stdout.splitlines()[-1] == rest


def test_a_recipe_as_json_has_its_file_and_every_number_in_force(run, recipe):
    facts = json.loads(run("inspect", recipe, "--json").stdout)
    assert facts["train"]["epochs"] == facts["in_force"]["train"]["epochs"] == 6
    assert "alpha" not in facts.get("lora", {})
    assert facts["in_force"]["lora"]["alpha"] == 2.0
