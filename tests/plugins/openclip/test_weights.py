"""Weights of open_clip's backbones from every kind of file: the same model, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from small_clip import named, small_clip
from torch import nn

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import BadFile, Mismatch, SgloraWarning, Unavailable, UnknownName
from sglora_openclip import OpenClip
from sglora_openclip import weights as weights_module

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
        f"{tmp_path / 'a.safetensors'} does not say which activation it was trained with; QuickGELU is taken, "
        "as in Small-quickgelu, and the wrong one costs accuracy "
        "(a config.json or open_clip_config.json beside it says it)"
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
    with pytest.raises(
        BadFile, match="is a TorchScript archive, which is a program, and not one that OpenAI published"
    ):
        loaded(architecture, path)
    monkeypatch.setattr(weights_module, "OPENAI", {weights_module.file_hash(path): "ViT-B/16"})
    assert loaded(architecture, path).fingerprint == loaded_fingerprint(architecture, model, tmp_path)


def loaded_fingerprint(architecture, model, tmp_path):
    (tmp_path / "plain").mkdir()
    save_file(model.clip.state_dict(), tmp_path / "plain/model.safetensors")
    (tmp_path / "plain/open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL}))
    return loaded(architecture, tmp_path / "plain").fingerprint


def test_the_wrong_activation_is_refused(architecture, model, tmp_path):
    save_file(model.clip.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {"hidden_act": "gelu"}}))
    with pytest.raises(
        Mismatch, match="were trained with GELU, backbone 'open_clip:Small-quickgelu' computes QuickGELU"
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
        ({"logit_scale": torch.tensor(float("nan"))}, BadFile, "logit_scale has numbers that are not finite"),
        ({"visual.proj": torch.ones(3, 3)}, Mismatch, r"visual.proj has shape \(3, 3\), \(32, 16\) is wanted"),
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
    with pytest.raises(Mismatch, match=r"are not of Wide-quickgelu: visual.class_embedding has shape \(32,\)") as e:
        loaded("Wide-quickgelu", tmp_path / "w.safetensors")
    assert e.value.hint == "name the architecture they were made for: --backbone open_clip:ARCHITECTURE"


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"visual.proj": Evil()}, "is a pickle of more than plain tensors: loading it could run any program"),
        ({"visual.proj": [1, 2]}, "is neither an adapter nor a checkpoint of named tensors"),
        (torch.ones(3), "is neither an adapter nor a checkpoint of named tensors"),
        ({"proj": torch.ones(3)}, "holds no CLIP model: no tensor is called visual"),
    ],
)
def test_a_file_of_something_else_is_refused_unexecuted(architecture, tmp_path, capsys, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(BadFile, match=message):
        loaded(architecture, tmp_path / "w.pt")
    assert capsys.readouterr().out == ""


def test_missing_weights_are_unavailable(architecture, tmp_path):
    with pytest.raises(Unavailable, match="do not exist"):
        loaded(architecture, tmp_path / "none.pt")
    with pytest.raises(BadFile, match="has none of open_clip_model"):
        loaded(architecture, tmp_path)
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(BadFile, match="is not a whole PyTorch file"):
        loaded(architecture, tmp_path / "cut.pt")


def test_only_weights_from_the_hub_have_the_hubs_name(architecture, model, tmp_path, monkeypatch):
    from sglora_openclip import model as module

    backbone = OpenClip("mine", architecture, "", "", hub_name="org/model")
    save_file(model.clip.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL}))
    assert backbone.load(RuntimeConfig(device="cpu", weights=str(tmp_path))).hub_name == ""
    monkeypatch.setattr(module, "fetch_model", lambda _: small_clip().clip)
    assert backbone.load(RuntimeConfig(device="cpu")).hub_name == "org/model"


def prepared(architecture: str, tag: str = "", **beside) -> tuple:
    checkpoint = weights_module.ClipWeights(Path("w.pt"), {}, None, beside)
    config = weights_module.preprocessing(architecture, tag, checkpoint)
    return tuple(config["mean"]), config["resize_mode"]


OPENAI, HALF = (0.48145466, 0.4578275, 0.40821073), (0.5, 0.5, 0.5)


def test_photos_are_prepared_as_the_weights_want_it():
    assert prepared("ViT-B-16-quickgelu", "openai") == (OPENAI, "shortest")
    assert prepared("ViT-B-16-SigLIP") == (HALF, "squash")  # all its tags agree
    assert prepared("ViT-L-14", "laion2b_s32b_b82k") == (HALF, "shortest")
    assert prepared("ViT-L-14", "openai") == (OPENAI, "shortest")
    assert prepared("ViT-L-14", mean=[0.1, 0.2, 0.3], resize_mode="squash") == ((0.1, 0.2, 0.3), "squash")


def test_where_tags_disagree_the_user_is_told():
    with pytest.warns(SgloraWarning, match="does not say how photos are prepared for it"):
        assert prepared("ViT-L-14") == (OPENAI, "shortest")
    with pytest.raises(UnknownName, match="no weights of ViT-L-14 in open_clip named 'laion'"):
        prepared("ViT-L-14", "laion")


def test_the_preprocessing_of_a_file_reaches_the_model_and_its_fingerprint(architecture, model, tmp_path):
    save_file(model.clip.state_dict(), tmp_path / "model.safetensors")
    names = {}
    for mean in ([0.5, 0.5, 0.5], [0.1, 0.1, 0.1]):
        config = {"model_cfg": SMALL, "preprocess_cfg": {"mean": mean, "resize_mode": "squash"}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
        read_model = loaded(architecture, tmp_path)
        assert list(read_model._preprocessing_config()["mean"]) == mean
        names[read_model.fingerprint] = mean
    assert len(names) == 2
