"""Weights of open_clip's backbones from every kind of file: the same model, or refused with the reason."""

from __future__ import annotations

import hashlib
import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from small_clip import named, small_clip
from torch import nn

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import BadFile, Mismatch, SgloraWarning, Unavailable
from sglora_openclip import OpenClip
from sglora_openclip import weights as weights_module
from sglora_openclip.names import matched
from sglora_openclip.text import text_state

SMALL = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    """Two small architectures that open_clip knows by name; the second computes GELU."""
    folder = tmp_path_factory.mktemp("architectures")
    (folder / "Small-quickgelu.json").write_text(json.dumps(SMALL))
    (folder / "Small.json").write_text(json.dumps({**SMALL, "quick_gelu": False}))
    (folder / "Wide-quickgelu.json").write_text(
        json.dumps({**SMALL, "vision_cfg": {**SMALL["vision_cfg"], "width": 48}})
    )
    open_clip.add_model_config(folder)
    return "Small-quickgelu"


@pytest.fixture(scope="module")
def model():
    return small_clip()


def loaded(architecture: str, path) -> object:
    return named(architecture).load(RuntimeConfig(device="cpu", weights=str(path)))


def test_every_kind_of_file_gives_the_same_model(architecture, model, tmp_path, recwarn):
    state = model.clip.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "c.pt")
    folder = tmp_path / "d"
    folder.mkdir()
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL}))
    fingerprints = [loaded(architecture, path).fingerprint for path in (*sorted(tmp_path.glob("?.*")), folder)]
    assert len(fingerprints) == 4
    assert set(fingerprints) == {loaded(architecture, folder).fingerprint}
    warnings = [str(w.message) for w in recwarn if isinstance(w.message, SgloraWarning)]
    assert len(warnings) == 3  # the folder says its activation
    assert warnings[0] == (
        f"{tmp_path / 'a.safetensors'} does not say which activation it was trained with. QuickGELU is used, "
        "as in Small-quickgelu. The wrong activation reduces accuracy "
        "(a config.json or open_clip_config.json beside the file can define it)"
    )


def test_openais_archive_is_known_by_its_hash_only(architecture, model, tmp_path, monkeypatch):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("visual", "transformer", "token_embedding", "ln_final"):
                setattr(self, name, getattr(small_clip().clip, name))
            for name in ("positional_embedding", "text_projection", "logit_scale"):
                setattr(self, name, getattr(small_clip().clip, name))
            self.register_buffer("vocab_size", torch.tensor(49408))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    path = tmp_path / "ViT-B-16.pt"
    with pytest.warns(FutureWarning):
        torch.jit.script(Holder()).save(str(path))
    with pytest.raises(BadFile, match="is a TorchScript archive, which is a program, and OpenAI did not publish it"):
        loaded(architecture, path)
    monkeypatch.setattr(weights_module, "OPENAI", {hashlib.sha256(path.read_bytes()).hexdigest(): "ViT-B/16"})
    (tmp_path / "config.json").write_text('{"vision_config": {"hidden_act": "gelu"}}')  # of something else, for sure
    assert loaded(architecture, path).fingerprint == loaded_fingerprint(architecture, model, tmp_path)
    alone, whole = weights_module.read_text(path), text_state(model.clip.state_dict())
    assert alone.keys() == whole.keys()
    assert all(torch.equal(alone[name], whole[name]) for name in whole)


def test_a_program_is_not_run_if_it_takes_the_place_of_a_published_one(tmp_path, monkeypatch):
    """What is opened are the bytes that were hashed, whatever lies in their place by then."""
    path, opened = tmp_path / "ViT-B-16.pt", []
    path.write_bytes(b"published")
    real = weights_module.data_hash

    def swapped(data):
        path.write_bytes(b"evil")
        return real(data)

    monkeypatch.setattr(weights_module, "OPENAI", {hashlib.sha256(b"published").hexdigest(): "ViT-B/16"})
    monkeypatch.setattr(weights_module, "data_hash", swapped)
    monkeypatch.setattr(torch.jit, "load", lambda file, **_: opened.append(file.read()) or nn.Module())
    weights_module._published(path)
    assert opened == [b"published"]
    with pytest.raises(BadFile, match="OpenAI did not publish it"):
        weights_module._published(path)


def loaded_fingerprint(architecture, model, tmp_path):
    (tmp_path / "plain").mkdir()
    save_file(model.clip.state_dict(), tmp_path / "plain/model.safetensors")
    (tmp_path / "plain/open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL}))
    return loaded(architecture, tmp_path / "plain").fingerprint


def test_the_wrong_activation_is_refused(architecture, model, tmp_path):
    save_file(model.clip.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {"hidden_act": "gelu"}}))
    with pytest.raises(
        Mismatch, match="were trained with GELU, but backbone 'open_clip:Small-quickgelu' uses QuickGELU"
    ) as e:
        loaded(architecture, tmp_path)
    assert e.value.hint == "pass --backbone open_clip:Small"


def changed(state, **changes):
    return {k: v for k, v in {**state, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"visual.proj": None}, Mismatch, "they lack visual.proj"),
        ({"extra": torch.ones(1)}, Mismatch, "they have extra"),
        ({"logit_scale": torch.tensor(float("nan"))}, BadFile, "logit_scale has non-finite numbers"),
        ({"visual.proj": torch.ones(3, 3)}, Mismatch, r"visual.proj has shape \(3, 3\), expected \(32, 16\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::sglora_cli.errors.SgloraWarning")
def test_weights_that_do_not_fit_are_refused(architecture, model, tmp_path, changes, error, message):
    save_file(changed(model.clip.state_dict(), **changes), tmp_path / "w.safetensors")
    with pytest.raises(error, match=message):
        loaded(architecture, tmp_path / "w.safetensors")


@pytest.mark.filterwarnings("ignore::sglora_cli.errors.SgloraWarning")
def test_weights_of_another_architecture_are_refused(architecture, model, tmp_path):
    save_file(model.clip.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(Mismatch, match=r"do not match Wide-quickgelu: visual.class_embedding has shape \(32,\)") as e:
        loaded("Wide-quickgelu", tmp_path / "w.safetensors")
    assert e.value.hint == "pass their architecture with --backbone open_clip:ARCHITECTURE"


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"visual.proj": Evil()}, "is a pickle of more than plain tensors, and loading it could run arbitrary code"),
        ({"visual.proj": [1, 2]}, "is neither an adapter nor a checkpoint of named tensors"),
        (torch.ones(3), "is neither an adapter nor a checkpoint of named tensors"),
        ({"proj": torch.ones(3)}, "contains no CLIP model, because no tensor is named visual"),
    ],
)
def test_a_file_of_something_else_is_refused_unexecuted(architecture, tmp_path, capsys, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(BadFile, match=message):
        loaded(architecture, tmp_path / "w.pt")
    assert capsys.readouterr().out == ""


def test_missing_weights_are_unavailable(architecture, tmp_path):
    with pytest.raises(Unavailable, match=r"^weights file .*none\.pt does not exist$") as error:
        loaded(architecture, tmp_path / "none.pt")
    assert error.value.hint == (
        "pass a file, or a folder with one of open_clip_model.safetensors, model.safetensors, "
        f"open_clip_pytorch_model.bin, pytorch_model.bin; searched in {tmp_path}"
    )
    with pytest.raises(BadFile, match="has none of open_clip_model"):
        loaded(architecture, tmp_path)
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(BadFile, match="is not a valid PyTorch file"):
        loaded(architecture, tmp_path / "cut.pt")


def test_only_weights_from_the_hub_have_the_hubs_name(architecture, model, tmp_path, monkeypatch):
    from sglora_openclip import loading as module

    backbone = OpenClip("mine", architecture, "", "", hub_name="org/model")
    save_file(model.clip.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL}))
    assert backbone.load(RuntimeConfig(device="cpu", weights=str(tmp_path))).hub_name == ""
    monkeypatch.setattr(module, "fetch_model", lambda _: small_clip().clip)
    assert backbone.load(RuntimeConfig(device="cpu")).hub_name == "org/model"


def test_photos_have_the_size_that_the_architecture_takes(architecture, model, tmp_path):
    from sglora_cli.testing import images

    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL}))
    save_file(model.clip.state_dict(), tmp_path / "model.safetensors")
    read_model = loaded(architecture, tmp_path)
    assert read_model.stem(images()).shape[1:] == (1 + 4 * 4, 32)
    assert read_model.fingerprint == open_clips_own(tmp_path).fingerprint


def open_clips_own(folder):
    """The model as open_clip itself loads a folder."""
    from sglora_openclip.model import OpenClipModel

    (folder / "open_clip_model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return OpenClipModel(open_clip.create_model(f"local-dir:{folder}"), "Small", RuntimeConfig(device="cpu"))


def test_which_of_several_files_is_taken_is_said(architecture, model, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL}))
    for name in ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"):
        save_file(model.clip.state_dict(), tmp_path / name)
    taken = tmp_path / "open_clip_model.safetensors"
    with pytest.warns(
        SgloraWarning, match=rf"using {taken}, but the folder also has model.safetensors, pytorch_model.bin \(choose"
    ):
        loaded(architecture, tmp_path)


def wrapped(prefix):
    return lambda state: {prefix + name: x for name, x in state.items()}


@pytest.mark.parametrize(
    "change",
    [
        wrapped("module."),
        wrapped("_orig_mod."),
        wrapped("model."),
        wrapped("clip."),
        wrapped("model.clip_model._orig_mod."),
        lambda state: {name.replace("visual.", "visual._orig_mod."): x for name, x in state.items()},
        lambda state: {**state, "logit_bias": torch.tensor(-10.0)},
        lambda state: {**state, "logit_scale": state["logit_scale"].reshape(1)},
        lambda state: {**state, "attn_mask": torch.zeros(77, 77), "context_length": torch.tensor(77)},
    ],
)
@pytest.mark.parametrize("save", [save_file, torch.save], ids=["safetensors", "pickle"])
@pytest.mark.filterwarnings("ignore:.*does not say which activation:sglora_cli.errors.SgloraWarning")
def test_what_training_programs_add_to_a_state_changes_nothing(architecture, model, tmp_path, change, save):
    save(change(model.clip.state_dict()), tmp_path / "w")
    save_file(model.clip.state_dict(), tmp_path / "plain.safetensors")
    found = loaded(architecture, tmp_path / "w")
    assert found.fingerprint == loaded(architecture, tmp_path / "plain.safetensors").fingerprint
    assert torch.equal(found.encode_text(["a mug"]), model.encode_text(["a mug"]))


def test_a_siglip_without_its_bias_is_read():
    own = {"logit_scale": torch.tensor(2.0), "logit_bias": torch.tensor(-10.0), "visual.proj": torch.ones(2)}
    state = {"logit_scale": torch.tensor([3.0]), "visual.proj": torch.zeros(2)}
    found = matched(own, state)
    assert found.keys() == own.keys()
    assert (float(found["logit_bias"]), found["logit_scale"].shape) == (-10.0, ())


def test_a_file_of_two_models_is_refused(architecture, model, tmp_path):
    state = model.clip.state_dict()
    save_file({**state, **{f"model.{name}": x.clone() for name, x in state.items()}}, tmp_path / "w.safetensors")
    with pytest.raises(BadFile, match="two tensors of the weights have the same name"):
        loaded(architecture, tmp_path / "w.safetensors")
