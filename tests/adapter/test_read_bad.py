"""Adapters that cannot be taken: what is said, the exit code, and that nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mugs import FLAT, LAYOUT, MODEL
from safetensors.torch import load_file, save_file

from sglora_cli.adapter.file import AdapterFile, load_adapter, save_adapter
from sglora_cli.adapter.formats import FORMATS
from sglora_cli.adapter.write import write_adapter

FIRST = "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"
REMEDY = "merge it in PEFT, or train a plain LoRA adapter"


def written(folder: Path, name: str) -> Path:
    path = folder / f"made{FORMATS[name].suffix}"
    adapter = AdapterFile(LAYOUT, FLAT, {"backbone": "clipling", "fingerprint": MODEL.fingerprint})
    write_adapter(path, adapter, MODEL, FORMATS[name])
    return path


def config(**values):
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def tensors(change):
    """Change the tensors of a PEFT folder; their metadata goes, as in a stranger's."""

    def apply(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        state = load_file(path)
        change(state)
        save_file(state, path)

    return apply


def with_tensor(name: str, value: torch.Tensor):
    return tensors(lambda state: state.update({name: value}))


def renamed(old: str, new: str):
    def change(state: dict) -> None:
        for name in list(state):
            state[name.replace(old, new)] = state.pop(name)

    return tensors(change)


PEFT = {
    "dora": (config(use_dora=True), 5, "adapter_config.json: use_dora = True: DoRA also rescales the weights", REMEDY),
    "dora tensors": (
        with_tensor(FIRST.replace("lora_A.weight", "lora_magnitude_vector.weight"), torch.ones(16)),
        5,
        "lora_magnitude_vector.weight: DoRA also rescales the weights",
        REMEDY,
    ),
    "modules to save": (config(modules_to_save=["head"]), 5, "modules_to_save = ['head']: whole modules are", REMEDY),
    "bias": (config(bias="lora_only"), 5, "bias = 'lora_only': biases are trained too", REMEDY),
    "bias of lora": (config(lora_bias=True), 5, "lora_bias = True: B has a bias of its own", REMEDY),
    "transposed": (config(fan_in_fan_out=True), 5, "fan_in_fan_out = True: the weights are stored transposed", REMEDY),
    "pissa": (
        config(init_lora_weights="pissa_niter_4"),
        5,
        "init_lora_weights = 'pissa_niter_4' changes the base weights",
        "save it with PEFT's path_initial_model_for_weight_conversion, which makes it a plain LoRA adapter",
    ),
    "other method": (config(peft_type="LOHA"), 5, "peft_type is 'LOHA', not 'LORA'", "only LoRA adapters can be read"),
    "no r": (config(r="2"), 4, "adapter_config.json: r = '2' is no r", ""),
    "no alpha": (config(lora_alpha=0), 4, "adapter_config.json: lora_alpha = 0 is no lora_alpha", ""),
    "bad pattern": (config(rank_pattern={"(": 2}), 4, "rank_pattern has '(', which is no pattern", ""),
    "rank differs": (config(r=4), 4, "has rank 2, adapter_config.json says 4", "the two files are not of one adapter"),
    "no targets": (config(target_modules=None), 4, "target_modules is None", "name the modules it adapts"),
    "not named": (
        config(target_modules=["q_proj", "v_proj"]),
        4,
        "has an update of vision_model.encoder.layers.0.self_attn.k_proj, which adapter_config.json does not name",
        "PEFT would leave it out",
    ),
    "missing": (
        tensors(lambda state: [state.pop(name) for name in list(state) if "layers.3.self_attn.v" in name]),
        4,
        "the update of vision_model.encoder.layers.3.self_attn.v_proj is missing: adapter_config.json names it",
        "fetch the adapter again, or name in adapter_config.json only what has an update",
    ),
    "half missing": (
        tensors(lambda state: state.pop(FIRST)),
        4,
        "lora_A of vision_model.encoder.layers.0.self_attn.q_proj is missing",
        "fetch the adapter again",
    ),
    "extra": (
        with_tensor("base_model.model.other.weight", torch.ones(2)),
        4,
        "has a tensor that belongs to no LoRA update of a linear layer: base_model.model.other.weight",
        REMEDY,
    ),
    "misshapen": (
        with_tensor(FIRST, torch.ones(16)),
        4,
        "B and A of vision_model.encoder.layers.0.self_attn.q_proj have shapes (16, 2) and (16,)",
        "",
    ),
    "empty": (with_tensor(FIRST, torch.ones(0, 16)), 4, "have shapes (16, 2) and (0, 16)", ""),
    "not finite": (
        with_tensor(FIRST, torch.full((2, 16), torch.inf)),
        4,
        "A of vision_model.encoder.layers.0.self_attn.q_proj contains numbers that are not finite",
        "it cannot be used",
    ),
    "whole numbers": (
        with_tensor(FIRST, torch.ones(2, 16, dtype=torch.int8)),
        4,
        "has numbers of type torch.int8, not of a LoRA adapter",
        "",
    ),
    "another width": (
        with_tensor(FIRST, torch.ones(2, 15)),
        5,
        "the update of vision_model.encoder.layers.0.self_attn.q_proj is 16 x 15, the backbone's weight is 16 x 16",
        "this adapter was made for another architecture: use the backbone it was made for",
    ),
    "another architecture": (
        lambda folder: (renamed("self_attn.", "attention.")(folder), config(target_modules=["q_proj"])(folder)),
        4,
        "which adapter_config.json does not name",
        "",
    ),
    "a language model": (
        lambda folder: (
            renamed("vision_model.encoder.layers", "model.decoder")(folder),
            config(target_modules=["q_proj", "k_proj", "v_proj"])(folder),
        ),
        5,
        "no update of the file belongs to a site of the backbone: the file has model.decoder.0.self_attn.k_proj, "
        "the backbone vision_model.encoder.layers.0.self_attn.q_proj",
        "this adapter was made for another architecture: use the backbone it was made for",
    ),
    "other projections": (
        lambda folder: (
            renamed("k_proj", "out_proj")(folder),
            config(target_modules=["q_proj", "out_proj", "v_proj"])(folder),
        ),
        5,
        "vision_model.encoder.layers.0.self_attn.out_proj has an update, but is no site of the backbone",
        "only adapters of k_proj, q_proj, v_proj, visual_projection can be taken",
    ),
    "zero": (
        tensors(lambda state: state.update({n: torch.zeros_like(x) for n, x in state.items() if "lora_B" in n})),
        5,
        "the adapter's update is zero: it would change nothing",
        "it was saved before training",
    ),
    "no weights": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        4,
        "has no adapter_model.safetensors",
        "fetch the adapter again",
    ),
    "no json": (lambda folder: (folder / "adapter_config.json").write_text("{"), 4, "line 1: not JSON", ""),
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), 4, "has no adapter_config.json", ""),
    "a link outside": (
        lambda folder: (
            (folder / "adapter_model.safetensors").unlink(),
            (folder / "adapter_model.safetensors").symlink_to("/etc/passwd"),
        ),
        4,
        "'adapter_model.safetensors' leads out of",
        "",
    ),
    "truncated": (
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(
            (folder / "adapter_model.safetensors").read_bytes()[:-9]
        ),
        4,
        "is not a complete safetensors file",
        "download or generate it again",
    ),
}


def refused(run, tmp_path: Path, thing: Path, code: int, message: str, hint: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = run("import", thing, "-o", tmp_path / "out.safetensors")
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert message in result.stderr
    assert f"hint: {hint}\n" in result.stderr or not hint
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("case", PEFT)
def test_a_peft_folder_that_cannot_be_taken(run, clipling, tmp_path, case):
    change, code, message, hint = PEFT[case]
    folder = written(tmp_path, "peft")
    change(folder)
    refused(run, tmp_path, folder, code, message, hint)


def clip_lora(change):
    def apply(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return apply


CLIP_LORA = {
    "output too": (
        clip_lora(lambda c: c["metadata"].update(params=["q", "k", "v", "o"])),
        5,
        "adapts the output projection too",
        "train it with --params q k v",
    ),
    "a layer short": (
        clip_lora(lambda c: (c["weights"].pop("layer_11"), c["metadata"].update(position="half-up"))),
        4,
        "has 11 layers, its metadata (encoder vision, position half-up) means 6",
        "the file is not whole",
    ),
    "no layers": (
        clip_lora(lambda c: c["weights"].pop("layer_3")),
        4,
        "its weights are not layer_0, layer_1 ...",
        "the file is not whole",
    ),
    "a projection short": (
        clip_lora(lambda c: c["weights"]["layer_3"].pop("q_proj")),
        4,
        "layer_3 has ['k_proj', 'v_proj'], its metadata names ['q', 'k', 'v']",
        "the file is not whole",
    ),
    "rank differs": (clip_lora(lambda c: c["metadata"].update(r=3)), 4, "its metadata says r = 3", ""),
    "no rank": (clip_lora(lambda c: c["metadata"].update(r=0)), 4, "its metadata says r = 0", ""),
    "no position": (clip_lora(lambda c: c["metadata"].update(position="x")), 4, "position = 'x', not one of", ""),
    "no encoder": (clip_lora(lambda c: c["metadata"].update(encoder="x")), 4, "encoder = 'x', not one of text", ""),
    "no tensor": (
        clip_lora(lambda c: c["weights"]["layer_0"]["q_proj"].update(w_lora_A=1)),
        4,
        "layer_0, q_proj holds something that is no tensor",
        "",
    ),
    "not finite": (
        clip_lora(lambda c: c["weights"]["layer_0"]["q_proj"]["w_lora_A"].fill_(torch.nan)),
        4,
        "contains numbers that are not finite",
        "it cannot be used",
    ),
    "text only": (
        clip_lora(lambda c: c["metadata"].update(encoder="text")),
        5,
        "says encoder = text: its updates are of the text encoder, and none is of the image encoder",
        "train the adapter on the image encoder",
    ),
    "cut off": (
        lambda path: path.write_bytes(path.read_bytes()[:-99]),
        4,
        "is not a whole PyTorch file",
        "fetch it again",
    ),
}


@pytest.mark.parametrize("case", CLIP_LORA)
def test_a_file_of_clip_lora_that_cannot_be_taken(run, clipling, tmp_path, case):
    change, code, message, hint = CLIP_LORA[case]
    path = written(tmp_path, "clip-lora")
    change(path)
    refused(run, tmp_path, path, code, message, hint)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_pickle_that_could_run_a_program_is_not_loaded(run, clipling, tmp_path):
    import os

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = tmp_path / "bomb.pt"
    torch.save({"weights": Bomb(), "metadata": {}}, path)
    result = run("import", path, "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 4
    assert result.stderr == (
        f"error: {path} is a pickle of more than plain tensors: loading it could run any program, so it is not loaded\n"
        "hint: save its tensors as .safetensors in the program that wrote it\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["bomb.pt"]


OTHERS = {
    "unknown": (b"\x89PNG\r\n\x1a\n" + bytes(50), "is in no format that is known here"),
    "empty": (b"", "is in no format that is known here"),
    "zip": (b"PK\3\4" + bytes(50), "is not a whole PyTorch file"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_file_in_no_format_is_refused(run, clipling, tmp_path, case):
    content, message = OTHERS[case]
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    for arguments in (["import", path, "-o", tmp_path / "out.safetensors"], ["inspect", path]):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (4, "")
        assert message in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_a_checkpoint_that_is_no_low_rank_update_is_refused(run, clipling, tmp_path):
    path = tmp_path / "tuned.safetensors"
    rng = torch.Generator().manual_seed(1)
    own = {f"{site.name}.weight" for site in MODEL.sites}
    noise = {n: x + torch.randn(x.shape, generator=rng) if n in own else x for n, x in MODEL.state.items()}
    for state, code, message in (
        (noise, 5, "differs from the backbone by no update of rank 2: the relative error is 0."),
        (MODEL.state, 5, "is the backbone itself: there is no update in it"),
        ({**MODEL.state, "extra": torch.ones(1)}, 5, "the checkpoint is not one of clipling"),
        ({n: x * torch.nan if n in own else x for n, x in MODEL.state.items()}, 4, "are not finite"),
    ):
        save_file(state, path)
        result = run("import", path, "-o", tmp_path / "out.safetensors", "--rank", "2")
        assert (result.exit_code, result.stdout) == (code, ""), result.stderr
        assert message in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["tuned.safetensors"]


def test_an_adapter_of_other_weights_is_refused(run, clipling, tmp_path):
    path = tmp_path / "x.safetensors"
    save_adapter(path, LAYOUT, FLAT, {"backbone": "clipling", "fingerprint": "other"})
    for arguments in (["import", path, "-o", tmp_path / "o.safetensors"], ["export", path, "-o", tmp_path / "o"]):
        result = run(*arguments)
        assert result.exit_code == 5
        assert "the adapter was made for a backbone with fingerprint other, this one has clipling-1" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_far_too_large_file_is_not_read(run, clipling, tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(b"\x02" + bytes(7) + b"{}")
        file.truncate(21 * 10**9)
    result = run("import", path, "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 4
    assert result.stderr == f"error: {path} has 21.0 GB, more than 20 GB\nhint: is it the right file?\n"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (["--alpha", "2"], "made says its scaling itself", "leave out --alpha"),
        (["--rank", "0"], "0 is not in the range", ""),
    ],
)
def test_options_that_do_not_fit(run, clipling, tmp_path, options, message, hint):
    result = run("import", written(tmp_path, "peft"), "-o", tmp_path / "out.safetensors", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert hint in result.stderr


@pytest.mark.filterwarnings("ignore:.*does not say which model:sglora_cli.errors.SgloraWarning")
@pytest.mark.parametrize("alpha", ["0", "-1", "nan", "inf"])
def test_an_alpha_that_is_none_is_refused(run, clipling, tmp_path, alpha):
    path = tmp_path / "bare.safetensors"
    save_file(load_file(written(tmp_path, "peft") / "adapter_model.safetensors"), path)
    result = run("import", path, "-o", tmp_path / "out.safetensors", "--alpha", alpha)
    assert (result.exit_code, result.stderr) == (2, f"error: alpha must be positive and finite, got {float(alpha):g}\n")
    ok = run("import", path, "-o", tmp_path / "out.safetensors", "--alpha", 3)
    assert ok.exit_code == 0


@pytest.mark.filterwarnings("ignore:.*does not say which model:sglora_cli.errors.SgloraWarning")
def test_an_old_folder_with_a_pickle_of_tensors_is_read(run, clipling, tmp_path):
    folder = written(tmp_path, "peft")
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    for n, thing in enumerate((folder, folder / "adapter_model.bin")):
        result = run("import", thing, "-o", tmp_path / f"{n}.safetensors")
        assert result.exit_code == 0, result.stderr
        assert torch.equal(load_adapter(tmp_path / f"{n}.safetensors").flat_P, FLAT)


def test_a_strangers_names_do_not_steer_the_terminal(run, clipling, tmp_path):
    folder = written(tmp_path, "peft")
    with_tensor("base_model.model.\x1b[31mred\n.weight", torch.ones(2))(folder)
    result = run("import", folder, "-o", tmp_path / "out.safetensors")
    assert "\x1b" not in result.stderr
    assert "base_model.model.\\x1b[31mred\\n.weight" in result.stderr
