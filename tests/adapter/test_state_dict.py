"""State dicts that other programs save: their wrappers' names are removed, and a state in a checkpoint is found."""

from __future__ import annotations

import json

import pytest
import torch
from mugs import FLAT, LAYOUT, MODEL
from safetensors.torch import load_file, save_file

from sglora_cli.adapter.checkpoint import read_state
from sglora_cli.adapter.file import AdapterFile, load_adapter
from sglora_cli.adapter.formats import FORMATS
from sglora_cli.adapter.read import read_adapter, recognise
from sglora_cli.adapter.state_dict import pickled_tensors, plain_name
from sglora_cli.adapter.write import write_adapter
from sglora_cli.errors import BadFile

pytestmark = pytest.mark.filterwarnings("ignore:.*does not record which model:sglora_cli.errors.SgloraWarning")
METADATA = {"backbone": "clipling", "fingerprint": MODEL.fingerprint}


@pytest.fixture
def folder(tmp_path):
    """A PEFT folder of the mug's adapter."""
    write_adapter(tmp_path / "peft", AdapterFile(LAYOUT, FLAT, METADATA), MODEL, FORMATS["peft"])
    return tmp_path / "peft"


def renamed(folder, old, new):
    """Change the names of a PEFT folder's tensors."""
    path = folder / "adapter_model.safetensors"
    state = {name.replace(old, new): x for name, x in load_file(path).items()}
    save_file(state, path)
    return state


def same_update(path, **options):
    foreign = read_adapter(path, MODEL, **options)
    return torch.allclose(foreign.fitted(LAYOUT)[0], FLAT) and foreign.lost == 0


@pytest.mark.parametrize("name", ["lora.pt", "lora.pth", "adapter_model.bin", "pytorch_lora_weights.bin"])
@pytest.mark.parametrize("inside", ["", "state_dict", "model_state_dict"])
def test_a_peft_state_of_torch_save_is_read(run, clipling, folder, tmp_path, name, inside):
    state = load_file(folder / "adapter_model.safetensors")
    path = tmp_path / name
    torch.save({inside: state, "epoch": 3} if inside else state, path)
    result = run("import", path, "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 4
    command = f"sglora import {path} --alpha ALPHA -o FILE"
    assert result.stderr.endswith(f"hint: pass the lora_alpha of its training: {command}\n")
    assert run("import", path, "-o", tmp_path / "out.safetensors", "--alpha", 3).exit_code == 0
    assert torch.allclose(load_adapter(tmp_path / "out.safetensors").flat_P, FLAT)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("base_model", "_orig_mod.base_model"),
        ("base_model", "module.base_model"),
        (".self_attn.", "._orig_mod.self_attn."),
        ("self_attn.", "self_attn._fsdp_wrapped_module."),
        ("weight", "default.weight"),
        ("weight", "pug.weight"),
    ],
)
@pytest.mark.parametrize("pattern", [True, False], ids=["pattern", "list"])
def test_names_of_wrappers_and_of_the_adapter_are_removed(folder, old, new, pattern):
    renamed(folder, old, new)
    path = folder / "adapter_config.json"
    if not pattern:
        path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": ["q_proj", "k_proj", "v_proj"]}))
    assert same_update(folder)


@pytest.mark.parametrize(
    "target", [r".*layers\.\d+\._orig_mod\.self_attn\.[qkv]_proj", ["_orig_mod.self_attn.q_proj", "k_proj", "v_proj"]]
)
def test_a_configuration_may_have_them_too(folder, target):
    renamed(folder, ".self_attn.", "._orig_mod.self_attn.")
    path = folder / "adapter_config.json"
    patterns = {"rank_pattern": {r"_orig_mod.self_attn.q_proj": 2}, "alpha_pattern": {"_orig_mod.self_attn.q_proj": 3}}
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": target, **patterns}))
    assert same_update(folder)


@pytest.mark.parametrize("save", [save_file, torch.save], ids=["safetensors", "pickle"])
@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module."])
def test_a_checkpoint_is_read_by_plain_names(tmp_path, save, wrapper):
    state = {name: x.clone() for name, x in MODEL.state.items()}
    save({wrapper + name: x for name, x in state.items()}, tmp_path / "x")
    assert read_state(tmp_path / "x")[0].keys() == state.keys()
    wanted = lambda name: name.startswith("visual_projection")  # noqa: E731
    assert list(read_state(tmp_path / "x", wanted=wanted)[0]) == ["visual_projection.weight"]
    save({wrapper + "a": torch.ones(1), "a": torch.ones(1)}, tmp_path / "y")
    with pytest.raises(BadFile, match="has two tensors for a"):
        read_state(tmp_path / "y")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_the_folder_of_a_merged_model_is_recognised(run, clipling, tmp_path, file):
    folder = tmp_path / "merged"
    folder.mkdir()
    state = MODEL.merged(LAYOUT, FLAT)
    (save_file if file.endswith(".safetensors") else torch.save)(state, folder / file)
    assert (recognise(folder).path, recognise(folder).kind) == (folder / file, "open_clip")
    result = run("import", folder, "-o", tmp_path / "out.safetensors", "--json")
    assert result.exit_code == 0, result.stderr
    inspected = run("inspect", folder)
    assert inspected.stdout.startswith("checkpoint\n"), inspected.stderr
    assert "sha256" in load_adapter(tmp_path / "out.safetensors").metadata["imported"]


@pytest.mark.parametrize("content", [{}, [], {"state_dict": {}}, {1: torch.ones(1)}, {"x": 1}, torch.ones(2)])
def test_what_has_no_tensors_is_refused(tmp_path, content):
    with pytest.raises(BadFile, match="neither an adapter nor a checkpoint of named tensors"):
        pickled_tensors(tmp_path, content)


def test_a_module_of_that_name_stays():
    assert plain_name("visual.module.0.weight") == "visual.module.0.weight"


@pytest.mark.parametrize("start", [b"\x80\x02", b"PK"])
def test_the_size_of_a_header_may_look_like_a_pickle(tmp_path, start):
    """The first bytes of a safetensors file are the size of its header, which has no meaning."""
    save_file({name: x.clone() for name, x in MODEL.merged(LAYOUT, FLAT).items()}, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    old, new = int.from_bytes(data[:8], "little"), int.from_bytes(start, "little")
    while new < old:
        new += 1 << 16
    header = data[8 : 8 + old] + b" " * (new - old)
    (tmp_path / "x.safetensors").write_bytes(new.to_bytes(8, "little") + header + data[8 + old :])
    assert (tmp_path / "x.safetensors").read_bytes()[:2] == start
    assert recognise(tmp_path / "x.safetensors").kind == "open_clip"
    assert read_adapter(tmp_path / "x.safetensors", MODEL).rank == 2
    assert read_state(tmp_path / "x.safetensors")[0].keys() == MODEL.state.keys()
