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
TRAIN = "train a plain LoRA adapter, of q, k and v only"
MERGE = (
    "merge it with PEFT's model.merge_and_unload().save_pretrained(FOLDER), then run: "
    "sglora import FOLDER -o NEW.safetensors --weights BASE"
)


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
    "dora": (
        config(use_dora=True),
        5,
        "adapter_config.json: use_dora = True is not supported, because DoRA also rescales the weights",
        TRAIN,
    ),
    "dora tensors": (
        with_tensor(FIRST.replace("lora_A.weight", "lora_magnitude_vector.weight"), torch.ones(16)),
        5,
        "lora_magnitude_vector.weight, but DoRA also rescales the weights",
        TRAIN,
    ),
    "modules to save": (
        config(modules_to_save=["head"]),
        5,
        "modules_to_save = ['head'] is not supported, because complete modules are",
        TRAIN,
    ),
    "bias": (
        config(bias="lora_only"),
        5,
        "bias = 'lora_only' is not supported, because biases are also trained",
        TRAIN,
    ),
    "bias of lora": (
        config(lora_bias=True),
        5,
        "lora_bias = True is not supported, because B has its own bias",
        TRAIN,
    ),
    "transposed": (
        config(fan_in_fan_out=True),
        5,
        "fan_in_fan_out = True is not supported, because the weights are stored transposed",
        MERGE,
    ),
    "pissa": (
        config(init_lora_weights="pissa_niter_4"),
        5,
        "init_lora_weights = 'pissa_niter_4' changes the base weights",
        "save it with PEFT's path_initial_model_for_weight_conversion, which converts it to a plain LoRA adapter",
    ),
    "other method": (config(peft_type="LOHA"), 5, "peft_type is 'LOHA', not 'LORA'", "use a LoRA adapter"),
    "no r": (config(r="2"), 4, "adapter_config.json: r = '2' is not a valid r", ""),
    "no alpha": (config(lora_alpha=0), 4, "adapter_config.json: lora_alpha = 0 is not a valid lora_alpha", ""),
    "bad pattern": (config(rank_pattern={"(": 2}), 4, "rank_pattern has the invalid pattern '('", ""),
    "rank differs": (
        config(r=4),
        4,
        "has rank 2, but adapter_config.json has 4",
        "use the two files of the same adapter",
    ),
    "no targets": (config(target_modules=None), 4, "target_modules is None", "list the adapted modules"),
    "not named": (
        config(target_modules=["q_proj", "v_proj"]),
        4,
        "has an update of vision_model.encoder.layers.0.self_attn.k_proj, which adapter_config.json does not list",
        "PEFT would ignore it",
    ),
    "missing": (
        tensors(lambda state: [state.pop(name) for name in list(state) if "layers.3.self_attn.v" in name]),
        4,
        "the update of vision_model.encoder.layers.3.self_attn.v_proj is missing, but adapter_config.json lists it",
        "fetch the adapter again, or list only modules with an update in adapter_config.json",
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
        "has a tensor that is not part of a LoRA update of a linear layer: base_model.model.other.weight",
        TRAIN,
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
        "has the type torch.int8, which is not a float type",
        "",
    ),
    "another width": (
        with_tensor(FIRST, torch.ones(2, 15)),
        5,
        "the update of vision_model.encoder.layers.0.self_attn.q_proj is 16 x 15, but the backbone's weight is 16 x 16",
        "use the backbone that the adapter was made for; this one has another architecture",
    ),
    "another architecture": (
        lambda folder: (renamed("self_attn.", "attention.")(folder), config(target_modules=["q_proj"])(folder)),
        4,
        "which adapter_config.json does not list",
        "",
    ),
    "a language model": (
        lambda folder: (
            renamed("vision_model.encoder.layers", "model.decoder")(folder),
            config(target_modules=["q_proj", "k_proj", "v_proj"])(folder),
        ),
        5,
        "no update of the file matches a site of the backbone: the file has model.decoder.0.self_attn.k_proj, "
        "the backbone has vision_model.encoder.layers.0.self_attn.q_proj",
        "use the backbone that the adapter was made for; this one has another architecture",
    ),
    "other projections": (
        lambda folder: (
            renamed("k_proj", "out_proj")(folder),
            config(target_modules=["q_proj", "out_proj", "v_proj"])(folder),
        ),
        5,
        "vision_model.encoder.layers.0.self_attn.out_proj has an update but is not a site of the backbone",
        "use an adapter of k_proj, q_proj, v_proj, visual_projection only",
    ),
    "zero": (
        tensors(lambda state: state.update({n: torch.zeros_like(x) for n, x in state.items() if "lora_B" in n})),
        5,
        "the adapter's update is zero, so it would change nothing",
        "it was probably saved before training",
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
        "also adapts the output projection",
        "train it with --params q k v",
    ),
    "a layer short": (
        clip_lora(lambda c: (c["weights"].pop("layer_11"), c["metadata"].update(position="half-up"))),
        4,
        "has 11 layers, but its metadata (encoder vision, position half-up) requires 6",
        "the file is incomplete; fetch it again",
    ),
    "no layers": (
        clip_lora(lambda c: c["weights"].pop("layer_3")),
        4,
        "its weights are not layer_0, layer_1 ...",
        "the file is incomplete; fetch it again",
    ),
    "a projection short": (
        clip_lora(lambda c: c["weights"]["layer_3"].pop("q_proj")),
        4,
        "layer_3 has ['k_proj', 'v_proj'], but its metadata lists ['q', 'k', 'v']",
        "the file is incomplete; fetch it again",
    ),
    "rank differs": (clip_lora(lambda c: c["metadata"].update(r=3)), 4, "but its metadata has r = 3", ""),
    "no rank": (clip_lora(lambda c: c["metadata"].update(r=0)), 4, "its metadata has an invalid r = 0", ""),
    "no position": (clip_lora(lambda c: c["metadata"].update(position="x")), 4, "position = 'x', not one of", ""),
    "no encoder": (clip_lora(lambda c: c["metadata"].update(encoder="x")), 4, "encoder = 'x', not one of text", ""),
    "no tensor": (
        clip_lora(lambda c: c["weights"]["layer_0"]["q_proj"].update(w_lora_A=1)),
        4,
        "layer_0, q_proj has a value that is not a tensor",
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
        "has encoder = text, so its updates are of the text encoder and none is of the image encoder",
        "train the adapter on the image encoder",
    ),
    "cut off": (
        lambda path: path.write_bytes(path.read_bytes()[:-99]),
        4,
        "is not a valid PyTorch file",
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
        f"error: {path} is a pickle of more than plain tensors, and loading it could run arbitrary code\n"
        "hint: save its tensors as .safetensors in the program that wrote it\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["bomb.pt"]


OTHERS = {
    "unknown": (b"\x89PNG\r\n\x1a\n" + bytes(50), "has an unknown format"),
    "empty": (b"", "has an unknown format"),
    "zip": (b"PK\3\4" + bytes(50), "is not a valid PyTorch file"),
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
        (noise, 5, "differs from the backbone by more than an update of rank 2 (relative error 0."),
        (MODEL.state, 5, "is identical to the backbone and has no update"),
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
    assert result.stderr == f"error: {path} has 21.0 GB, the limit is 20 GB\nhint: check that it is the right file\n"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (["--alpha", "2"], "made contains its own scaling", "omit --alpha"),
        (["--rank", "0"], "0 is not in the range", ""),
    ],
)
def test_options_that_do_not_fit(run, clipling, tmp_path, options, message, hint):
    result = run("import", written(tmp_path, "peft"), "-o", tmp_path / "out.safetensors", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert hint in result.stderr


@pytest.mark.filterwarnings("ignore:.*does not record which model:sglora_cli.errors.SgloraWarning")
@pytest.mark.parametrize("alpha", ["0", "-1", "nan", "inf"])
def test_an_alpha_that_is_none_is_refused(run, clipling, tmp_path, alpha):
    path = tmp_path / "bare.safetensors"
    save_file(load_file(written(tmp_path, "peft") / "adapter_model.safetensors"), path)
    result = run("import", path, "-o", tmp_path / "out.safetensors", "--alpha", alpha)
    assert (result.exit_code, result.stderr) == (2, f"error: alpha must be positive and finite, got {float(alpha):g}\n")
    ok = run("import", path, "-o", tmp_path / "out.safetensors", "--alpha", 3)
    assert ok.exit_code == 0


@pytest.mark.filterwarnings("ignore:.*does not record which model:sglora_cli.errors.SgloraWarning")
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


OTHER_NAMES = {
    "kohya's sd-scripts": ("lora_down.weight", "lora_up.weight"),
    "older versions of diffusers": ("lora.down.weight", "lora.up.weight"),
    "older versions of diffusers ": ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    "loralib": ("lora_A", "lora_B"),
}


@pytest.mark.filterwarnings("ignore:.*does not record which model:sglora_cli.errors.SgloraWarning")
@pytest.mark.parametrize("program", OTHER_NAMES)
@pytest.mark.parametrize("alpha", [(), ("--alpha", "3")], ids=["", "alpha"])
def test_the_names_of_another_program_are_refused_and_the_hint_leads_on(run, clipling, tmp_path, program, alpha):
    peft = load_file(written(tmp_path, "peft") / "adapter_model.safetensors")
    a, b = OTHER_NAMES[program]
    theirs = {name.replace("lora_A.weight", a).replace("lora_B.weight", b): x for name, x in peft.items()}
    path = tmp_path / "theirs.safetensors"
    save_file({**theirs, "base.alpha": torch.tensor(3.0)}, path)
    result = run("import", path, "-o", tmp_path / "out.safetensors", *alpha)
    assert result.exit_code == 4
    assert result.stderr.startswith(f"error: {path} has the tensor names of {program.strip()}, such as ")
    assert ".alpha" not in result.stderr
    assert "hint: rename its factors to MODULE.lora_A.weight (down) and MODULE.lora_B.weight (up)" in result.stderr
    save_file(peft, path)
    assert run("import", path, "--alpha", 3, "-o", tmp_path / "new.safetensors").exit_code == 0


def test_a_file_with_several_adapters_is_refused(run, clipling, tmp_path):
    folder = written(tmp_path, "peft")
    with_tensor(FIRST.replace("weight", "pug.weight"), torch.ones(2, 16))(folder)
    message = "has several adapters, such as 'default' and 'pug'"
    hint = "save one of them, with PEFT's model.save_pretrained(FOLDER, selected_adapters=['default'])"
    refused(run, tmp_path, folder, 4, message, hint)


def test_a_complete_state_of_a_peft_model_is_refused(run, clipling, tmp_path):
    folder = written(tmp_path, "peft")
    with_tensor("base_model.model.vision_model.q_proj.base_layer.weight", torch.ones(2, 2))(folder)
    hint = "save only the adapter, with PEFT's model.save_pretrained(FOLDER)"
    refused(run, tmp_path, folder, 4, "has a tensor that is not part of a LoRA update", hint)
