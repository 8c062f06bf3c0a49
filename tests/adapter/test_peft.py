"""Our files in PEFT on transformers, and PEFT's files in ours, against the update added densely."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from thirdparty.sglora_clipling import DEPTH, EMBED, HEADS, HIDDEN, PATCH, SIDE, WIDTH, Clipling

from sglora_cli.adapter.file import AdapterFile
from sglora_cli.adapter.formats import FORMATS
from sglora_cli.adapter.read import read_adapter
from sglora_cli.adapter.write import write_adapter
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.lora.algebra import update_error
from sglora_cli.lora.layout import Layout

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore:.*(does not record which|which may not be):sglora_cli.errors.SgloraWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
]
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

MODEL = Clipling()
TOWER = r".*vision_model\.encoder\.layers\.\d+\.self_attn\.(q_proj|k_proj|v_proj)"
ALL = {
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_attention_heads": HEADS,
    "projection_dim": EMBED,
    "num_hidden_layers": DEPTH,
}
VISION = {**ALL, "image_size": SIDE, "patch_size": PATCH}
TEXT = {**ALL, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


def clip_model():
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=EMBED)
    model = transformers.CLIPModel(config)
    missing, unexpected = model.load_state_dict(MODEL.state, strict=False)
    assert not unexpected
    assert all(not name.startswith(("vision", "visual")) or "position_ids" in name for name in missing)
    return model.eval()


def projected():
    model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION))
    model.load_state_dict(MODEL.state, strict=False)
    return model.eval()


def vision_only():
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION))
    prefix = "" if "encoder.layers.0.mlp.fc1.weight" in model.state_dict() else "vision_model."
    state = {name.replace("vision_model.", prefix): x for name, x in MODEL.state.items() if "visual_proj" not in name}
    model.load_state_dict(state, strict=False)
    return model.eval()


def features(model) -> torch.Tensor:
    """Image features of some pixels, whatever the class gives them in."""
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        if hasattr(model, "get_image_features"):
            output = model.get_image_features(pixel_values=pixels)
            return getattr(output, "pooler_output", output)
        output = model(pixel_values=pixels)
    return output["image_embeds"] if "image_embeds" in output else output["pooler_output"]


def with_update(model, adapter: AdapterFile):
    """A copy of the model with the update added densely."""
    changed = copy.deepcopy(model)
    parameters = dict(changed.named_parameters())
    with torch.no_grad():
        for name, (b, a) in adapter.layout.split(adapter.flat_P).items():
            key = f"{name}.weight" if f"{name}.weight" in parameters else f"{name.split('.', 1)[1]}.weight"
            parameters[key] += (adapter.layout.scaling * b.double() @ a.double()).float()
    return changed


def an_adapter(rank: int = 2) -> AdapterFile:
    layout = Layout(MODEL.sites, rank, 3.0)
    flat = 0.3 * torch.randn(layout.size, generator=torch.Generator().manual_seed(rank))
    return AdapterFile(layout, flat, {"fingerprint": MODEL.fingerprint, "description": "a mug"})


def test_the_small_clip_is_transformers_own():
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    MODEL.pixels = lambda images: pixels
    ours = MODEL.encode_image(MODEL.stem([]))
    del MODEL.pixels
    assert torch.allclose(ours, torch.nn.functional.normalize(features(projected()), dim=-1), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "build"),
    [("peft", clip_model), ("peft", projected), ("peft-flat", vision_only)],
    ids=["CLIPModel", "CLIPVisionModelWithProjection", "CLIPVisionModel"],
)
def test_a_folder_of_ours_has_its_exact_effect_in_peft(tmp_path, name, build):
    adapter, model = an_adapter(), build()
    plain, wanted = features(model), features(with_update(model, adapter))
    write_adapter(tmp_path / "made", adapter, MODEL, FORMATS[name])
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "made")
    assert torch.allclose(features(loaded.base_model.model), wanted, atol=1e-5)
    assert float((plain - wanted).abs().max()) > 1e-2
    layers = [n for n, m in loaded.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    assert len(layers) == 3 * DEPTH
    assert not any("text_model" in n for n in layers)


@pytest.mark.parametrize("sites", [(MODEL.projection,), (*MODEL.sites, MODEL.projection)], ids=["alone", "both"])
@pytest.mark.parametrize("build", [clip_model, projected])
def test_peft_gives_an_adapter_with_a_projection_its_exact_effect(tmp_path, build, sites):
    layout, model = Layout(sites, 2, 3.0), build()
    flat_P = 0.3 * torch.randn(layout.size, generator=torch.Generator().manual_seed(1))
    adapter = AdapterFile(layout, flat_P, {"fingerprint": MODEL.fingerprint, "description": "a mug"})
    plain = features(model)
    write_adapter(tmp_path / "made", adapter, MODEL, FORMATS["peft"])
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "made")
    found = features(loaded.base_model.model)
    assert torch.allclose(normalized(found), of_the_host(layout, flat_P), atol=1e-5)
    assert float((plain - found).abs().max()) > 1e-2
    layers = [n for n, m in loaded.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    assert len(layers) == len(sites)
    again = read_adapter(tmp_path / "made", MODEL)
    assert again.layout() == layout
    assert torch.equal(again.fitted(layout)[0], flat_P)


def normalized(vectors):
    return torch.nn.functional.normalize(vectors, dim=-1)


def of_the_host(layout, flat_P):
    """The unit features that the backbone itself gives for the pixels of `features`."""
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    model = Clipling()
    model.pixels = lambda images: pixels
    return model.encode_image(model.stem([]), layout, flat_P[None])[0]


VARIANTS = {
    "plain": {"r": 2, "lora_alpha": 5, "target_modules": TOWER},
    "rslora": {"r": 4, "lora_alpha": 5, "use_rslora": True, "target_modules": TOWER},
    "patterns": {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": TOWER,
        "rank_pattern": {"layers.1.self_attn.q_proj": 5, "v_proj": 3},
        "alpha_pattern": {"v_proj": 7, r"layers.\d+.self_attn.k_proj": 9},
    },
    "fewer projections": {"r": 3, "lora_alpha": 3, "target_modules": TOWER.replace("|k_proj", "")},
    "some layers": {"r": 3, "lora_alpha": 3, "target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1, 2]},
    "the projection alone": {"r": 3, "lora_alpha": 4, "target_modules": ["visual_projection"]},
    "the projection, too": {"r": 3, "lora_alpha": 4, "target_modules": rf"{TOWER}|visual_projection"},
    "the projection at a rank of its own": {
        "r": 3,
        "lora_alpha": 4,
        "target_modules": rf"{TOWER}|visual_projection",
        "rank_pattern": {"visual_projection": 1},
    },
    "gaussian": {"r": 2, "lora_alpha": 2, "target_modules": TOWER, "init_lora_weights": "gaussian"},
}


def saved_by_peft(tmp_path, build=projected, **config):
    torch.manual_seed(0)
    loaded = peft.get_peft_model(build(), peft.LoraConfig(**config)).eval()
    with torch.no_grad():
        for name, x in loaded.named_parameters():
            if "lora_B" in name:
                x.normal_(std=0.3)
    loaded.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs", loaded


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_adapter_of_peft_has_its_exact_effect_in_ours(tmp_path, variant):
    folder, loaded = saved_by_peft(tmp_path, **VARIANTS[variant])
    foreign = read_adapter(folder, MODEL)
    layout = foreign.layout()
    flat, error = foreign.fitted(layout)
    assert error == 0
    ours = with_update(projected(), AdapterFile(layout, flat, {}))
    assert torch.allclose(features(ours), features(loaded.base_model.model), atol=1e-5)
    assert torch.allclose(of_the_host(layout, flat), normalized(features(loaded.base_model.model)), atol=1e-5)
    flat, error = foreign.fitted(Layout(layout.sites, 1, 4.0))
    assert 0.1 < error < 1
    wide = Layout(layout.sites, 8, 4.0)
    flat, error = foreign.fitted(wide)
    assert error == 0
    assert torch.allclose(features(with_update(projected(), AdapterFile(wide, flat, {}))), features(ours), atol=1e-5)


def test_the_flat_model_of_peft_is_read_too(tmp_path):
    config = {**VARIANTS["plain"], "target_modules": TOWER.replace(r"vision_model\.", "")}
    folder, loaded = saved_by_peft(tmp_path, vision_only, **config)
    foreign = read_adapter(folder, MODEL)
    flat, _ = foreign.fitted(foreign.layout())
    ours = with_update(vision_only(), AdapterFile(foreign.layout(), flat, {}))
    assert torch.allclose(features(ours), features(loaded.base_model.model), atol=1e-5)


def test_both_towers_need_a_decision(tmp_path):
    folder, _ = saved_by_peft(tmp_path, clip_model, r=2, lora_alpha=2, target_modules=["q_proj", "v_proj"])
    with pytest.raises(Mismatch, match="24 updates outside the visual encoder, such as text_model") as caught:
        read_adapter(folder, MODEL)
    assert caught.value.hint == "pass --visual-only to ignore them"
    assert len(read_adapter(folder, MODEL, visual_only=True).parts) == 3 * DEPTH


def test_the_state_alone_needs_its_alpha(tmp_path):
    folder, _ = saved_by_peft(tmp_path, **VARIANTS["plain"])
    expected = read_adapter(folder, MODEL)
    alone = (folder / "adapter_model.safetensors").rename(tmp_path / "alone.safetensors")
    with pytest.raises(BadFile, match="the file does not contain its scaling"):
        read_adapter(alone, MODEL)
    loaded = read_adapter(alone, MODEL, alpha=5)
    for name, (b, a) in expected.parts.items():
        assert torch.equal(loaded.parts[name][0], b)
        assert torch.equal(loaded.parts[name][1], a)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"use_dora": True},
            "lora_magnitude_vector|use_dora = True is not supported, because DoRA also rescales the weights",
        ),
        ({"bias": "all"}, "bias = 'all' is not supported, because biases are also trained"),
        (
            {"modules_to_save": ["visual_projection"]},
            "modules_to_save = .* is not supported, because complete modules are replaced",
        ),
        ({"lora_bias": True}, "lora_bias = True is not supported, because B has its own bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa' changes the base weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights = 'olora' changes the base weights"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
@pytest.mark.filterwarnings("ignore:Adapter 'default'. 36 LoRA tensor")
def test_what_peft_saves_and_is_more_than_an_update_is_refused(tmp_path, change, message):
    folder, _ = saved_by_peft(tmp_path, **{**VARIANTS["plain"], **change})
    with pytest.raises(Mismatch, match=message):
        read_adapter(folder, MODEL)


def test_an_adapter_saved_before_training_is_refused(tmp_path):
    peft.get_peft_model(projected(), peft.LoraConfig(**VARIANTS["plain"])).save_pretrained(tmp_path / "theirs")
    with pytest.raises(Mismatch, match="the adapter's update is zero"):
        read_adapter(tmp_path / "theirs", MODEL)


def test_a_merged_model_of_peft_is_read(tmp_path):
    folder, loaded = saved_by_peft(tmp_path, **VARIANTS["plain"])
    expected = read_adapter(folder, MODEL)
    from safetensors.torch import save_file

    state = {n: x for n, x in loaded.merge_and_unload().state_dict().items() if not n.endswith("position_ids")}
    save_file(state, tmp_path / "merged.safetensors")
    merged = read_adapter(tmp_path / "merged.safetensors", MODEL)
    assert merged.rank == 2
    layout = Layout(MODEL.sites, 2, 2.0)
    assert update_error(layout, merged.fitted(layout)[0], expected.fitted(layout)[0]) < 1e-5


def test_the_configuration_is_complete_for_peft(tmp_path):
    write_adapter(tmp_path / "made", an_adapter(), MODEL, FORMATS["peft"])
    theirs = peft.LoraConfig.from_pretrained(tmp_path / "made")
    ours = json.loads((tmp_path / "made/adapter_config.json").read_text())
    for key, value in ours.items():
        assert getattr(theirs, key) == value
