"""What is remembered of weights: the same as the whole model says, and only while its files are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_clip import named
from synthetic_packs import synthetic_pack

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import BadFile, Mismatch, SgloraWarning
from sglora_cli.lora.layout import Layout
from sglora_cli.testing import images
from sglora_openclip import OpenClip, hub, loading
from sglora_openclip.model import OpenClipModel

SMALL = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
SENTENCES = ["a photo of a pug", "two dogs on a couch"]
HEAVY = ["open_clip", "timm", "torchvision", "transformers", "torch._dynamo", "sympy"]


@pytest.fixture(scope="module", autouse=True)
def architecture(tmp_path_factory):
    """One that open_clip knows by name."""
    folder = tmp_path_factory.mktemp("architectures")
    (folder / "Stored-quickgelu.json").write_text(json.dumps(SMALL))
    open_clip.add_model_config(folder)
    return "Stored-quickgelu"


def settled(path: Path) -> Path:
    """The same file, as if it had been there for a while: what is new is not relied on."""
    then = time.time() - 3600
    os.utime(path, (then, then))
    return path


@pytest.fixture
def clip(architecture):
    torch.manual_seed(0)
    return open_clip.create_model(architecture, load_weights=False)


@pytest.fixture
def folder(clip, tmp_path):
    """Weights, and the file that says what they are."""
    (tmp_path / "weights").mkdir()
    save_file(clip.state_dict(), tmp_path / "weights/open_clip_model.safetensors")
    (tmp_path / "weights/open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL}))
    for path in (tmp_path / "weights").iterdir():
        settled(path)
    return tmp_path / "weights"


def loaded(path: Path, architecture: str = "Stored-quickgelu"):
    return named(architecture).load(RuntimeConfig(device="cpu", weights=str(path)))


@pytest.fixture
def never_built(monkeypatch):
    """No model is made of what is loaded from now on, until the fixture is called."""

    def forbid():
        monkeypatch.setattr(loading, "_put", lambda *_: pytest.fail("the whole model was loaded"))

    return forbid


def facts(model):
    return model.fingerprint, model.sites, model.projection, model.scale, model.text_shape


def test_what_is_remembered_is_what_the_whole_model_says(clip, folder, never_built):
    whole = OpenClipModel(clip, "Stored-quickgelu", RuntimeConfig(device="cpu"))
    expected, text_CD = facts(whole), whole.encode_text(SENTENCES)
    first = loaded(folder)
    assert facts(first) == expected
    never_built()
    again = loaded(folder)
    assert facts(again) == expected
    assert torch.equal(again.encode_text(SENTENCES), text_CD)
    with pytest.raises(pytest.fail.Exception, match="the whole model was loaded"):
        again.stem(images())


def test_photos_are_seen_as_before(clip, folder):
    loaded(folder)
    model, whole = loaded(folder), OpenClipModel(clip, "Stored-quickgelu", RuntimeConfig(device="cpu"))
    text_CD = model.encode_text(SENTENCES)
    assert torch.equal(model.encode_image(model.stem(images())), whole.encode_image(whole.stem(images())))
    assert torch.equal(model.encode_text(SENTENCES), text_CD)
    for kind in ("state_dict", "named_buffers"):
        ours, theirs = (dict(getattr(one, kind)()) for one in (model.clip, clip))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), kind
    tokens = model._text._state["token_embedding.weight"]
    assert tokens.data_ptr() == model.clip.token_embedding.weight.data_ptr()  # in memory once


def as_transformers(state):
    """The state by transformers' names, written down by hand for this small model."""
    from sglora_openclip.names import LAYERS, TOWERS, TRANSPOSED, WHOLE

    renamed = {}
    for name, tensor in state.items():
        for tower, prefix in TOWERS.items():
            if name.startswith(f"{prefix}.resblocks."):
                number, _, rest = name.removeprefix(f"{prefix}.resblocks.").partition(".")
                layer = f"{tower}.encoder.layers.{number}"
                if "in_proj" in rest:
                    for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                        renamed[f"{layer}.self_attn.{part}_proj.{rest.rpartition('_')[2]}"] = rows.clone()
                else:
                    stem, _, kind = rest.rpartition(".")
                    renamed[f"{layer}.{next(k for k, v in LAYERS.items() if v == stem)}.{kind}"] = tensor
                break
        else:
            stem, _, kind = name.rpartition(".")
            theirs = {v: k for k, v in WHOLE.items()}
            value = tensor.T.contiguous() if name in TRANSPOSED else tensor
            renamed[theirs[name] if name in theirs else f"{theirs[stem]}.{kind}"] = value
    return renamed


@pytest.mark.parametrize("kind", ["safetensors", "pt", "half", "transformers"])
def test_the_text_encoder_alone_is_read_of_every_kind_of_file(clip, tmp_path, never_built, kind):
    state, path = clip.state_dict(), tmp_path / ("w.pt" if kind == "pt" else "w.safetensors")
    if kind == "half":
        state = {name: tensor.half() for name, tensor in state.items()}
        clip.load_state_dict(state)
    if kind == "pt":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    else:
        save_file(as_transformers(state) if kind == "transformers" else state, path)
    settled(path)
    whole = OpenClipModel(clip, "Stored-quickgelu", RuntimeConfig(device="cpu"))
    with pytest.warns(SgloraWarning, match="does not say which activation"):
        first = loaded(path)
    assert facts(first) == facts(whole)
    assert all(weight.dtype == torch.float32 for weight in first.clip.parameters())
    never_built()
    with pytest.warns(SgloraWarning, match="does not say which activation") as caught:  # whenever it is loaded
        again = loaded(path)
    assert len(caught) == 1
    assert torch.equal(again.encode_text(SENTENCES), whole.encode_text(SENTENCES))


def other_numbers(path: Path, name: str) -> None:
    state = load_file(path)
    state[name] = state[name] + 1
    save_file(state, path)
    settled(path)


@pytest.mark.parametrize("name", ["visual.proj", "text_projection"])
def test_weights_that_change_after_they_were_known_are_refused(folder, name):
    loaded(folder)
    before = loaded(folder)
    other_numbers(folder / "open_clip_model.safetensors", name)
    with pytest.raises(BadFile, match=r"open_clip_model.safetensors changed after its fingerprint was taken"):
        before.encode_text(SENTENCES)
    with pytest.raises(BadFile, match=r"open_clip_model.safetensors changed after its fingerprint was taken"):
        before.stem(images())
    assert loaded(folder).fingerprint != before.fingerprint


def test_what_is_said_beside_weights_is_read_again_when_it_changes(folder):
    loaded(folder)
    config = folder / "config.json"
    config.write_text(json.dumps({"vision_config": {"hidden_act": "gelu"}}))  # a new file
    settled(config)
    with pytest.raises(Mismatch, match="which are different activations"):
        loaded(folder)
    config.unlink()
    loaded(folder)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**SMALL, "quick_gelu": False}}))
    with pytest.raises(Mismatch, match="were trained with GELU"):
        loaded(folder)


def test_weights_that_do_not_fit_are_refused_each_time(folder):
    other_numbers(folder / "open_clip_model.safetensors", "logit_scale")
    state = load_file(folder / "open_clip_model.safetensors")
    save_file({name: x for name, x in state.items() if name != "visual.proj"}, folder / "open_clip_model.safetensors")
    settled(folder / "open_clip_model.safetensors")
    for _ in range(2):
        with pytest.raises(Mismatch, match=r"they lack visual\.proj"):
            loaded(folder)


@pytest.fixture
def cache(clip, architecture, tmp_path, monkeypatch):
    """A hub's cache that has weights of a tag, and of a model of the hub; nothing else can be had."""
    from huggingface_hub import constants
    from open_clip import pretrained

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    inception = pretrained._slpcfg(hf_hub="org/small/", quick_gelu=True)
    monkeypatch.setitem(pretrained._PRETRAINED, architecture, {"mine": inception})
    model = tmp_path / "hub/models--org--small"
    snapshot = model / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs/main").write_text("0" * 40)
    save_file(clip.state_dict(), snapshot / "open_clip_model.safetensors")
    photos = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    (snapshot / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL, "preprocess_cfg": photos}))
    for path in snapshot.iterdir():
        settled(path)
    return snapshot


CACHED = [
    OpenClip("open_clip:Stored-quickgelu/mine", "Stored-quickgelu", "mine", ""),
    OpenClip("hf-hub:org/small", "hf-hub:org/small", "", ""),
]


def by_open_clip(backbone: OpenClip) -> OpenClipModel:
    with hub.cache_only():
        clip = open_clip.create_model(backbone.architecture, pretrained=backbone.tag or None)
    return OpenClipModel(clip, backbone.architecture, RuntimeConfig(device="cpu"))


@pytest.mark.parametrize("backbone", CACHED, ids=["tag", "hub"])
def test_weights_in_the_cache_are_the_model_that_open_clip_makes_of_them(cache, backbone, never_built):
    """With the tag's way to prepare photos, or that of the hub's configuration: the fingerprint shows it."""
    theirs = by_open_clip(backbone)
    assert not backbone.absent(RuntimeConfig())
    first = backbone.load(RuntimeConfig(device="cpu"))
    assert facts(first) == facts(theirs)
    assert torch.equal(first.encode_image(first.stem(images())), theirs.encode_image(theirs.stem(images())))
    never_built()
    again = backbone.load(RuntimeConfig(device="cpu"))
    assert facts(again) == facts(theirs)
    assert torch.equal(again.encode_text(SENTENCES), theirs.encode_text(SENTENCES))


def test_the_two_ways_to_prepare_photos_are_two_models(cache):
    assert len({backbone.load(RuntimeConfig(device="cpu")).fingerprint for backbone in CACHED}) == 2


@pytest.mark.parametrize("backbone", CACHED, ids=["tag", "hub"])
def test_weights_that_open_clip_converts_are_loaded_by_open_clip(cache, backbone):
    state = load_file(cache / "open_clip_model.safetensors")
    state["logit_scale"] = state["logit_scale"][None]  # as some of its checkpoints have it
    save_file(state, cache / "open_clip_model.safetensors")
    settled(cache / "open_clip_model.safetensors")
    theirs = by_open_clip(backbone)
    assert backbone.load(RuntimeConfig(device="cpu")).fingerprint == theirs.fingerprint


def test_a_tokenizer_of_the_default_kind_is_taken_for_a_model_of_the_hub(cache):
    assert isinstance(CACHED[1].load(RuntimeConfig(device="cpu"))._tokenizer, open_clip.SimpleTokenizer)


def beside_open_clip(folder: Path, architecture: str) -> Path:
    """A folder to import open_clip from: the same package, which also knows the architecture by a file of its own."""
    package, installed = folder / "open_clip", Path(open_clip.__file__).parent
    (package / "model_configs").mkdir(parents=True)
    for path in installed.iterdir():
        if path.name != "model_configs":
            (package / path.name).symlink_to(path)
    (package / "model_configs" / f"{architecture}.json").write_text(json.dumps(SMALL))
    return folder


@pytest.mark.slow
def test_an_adapter_is_made_without_importing_open_clip(folder, architecture, tmp_path, own_home):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = loaded(folder)
    layout = Layout(tuple(model.sites), 2, 2.0)
    synthetic_pack(tmp_path / "pack", 4, layout, f"open_clip:{architecture}", model.fingerprint, (16, 16))
    code = (
        "import sys\n"
        "from sglora_cli.cli.main import main\n"
        f"main(['generate', 'a photo of a pug', '--pack', {str(tmp_path / 'pack')!r}, '--weights', {str(folder)!r}, "
        f"'--force', '-o', {str(tmp_path / 'pug.safetensors')!r}], standalone_mode=False)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    where = str(beside_open_clip(tmp_path / "site", architecture))
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": where}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [str(tmp_path / "pug.safetensors"), "[]"]
