"""What an adapter says of its base, and what its configuration names, against the backbone and the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mugs import FLAT, LAYOUT, MODEL
from safetensors.torch import load_file, save_file

from sglora_cli.adapter.base import Base
from sglora_cli.adapter.file import AdapterFile
from sglora_cli.adapter.formats import FORMATS
from sglora_cli.adapter.read import read_adapter
from sglora_cli.adapter.write import write_adapter
from sglora_cli.errors import BadFile, Mismatch, SgloraWarning

B16 = "openai/clip-vit-base-patch16"
SITE = "vision_model.encoder.layers.{}.self_attn.{}_proj"


class Named:
    """A model that is known by its names."""

    def __init__(self, *names: str) -> None:
        self.hub_name, self._names = names[0], list(names)

    def base_names(self) -> list[str]:
        return self._names


def doubt(base: Base, *names: str) -> str:
    return base.check_backbone(Path("x"), ["encoder.layers.0.self_attn.q_proj"], Named(*names), "own")


@pytest.mark.parametrize(
    ("kind", "library"),
    [
        ("CLIPTextModel", "transformers.models.clip.modeling_clip"),
        ("CLIPTextModelWithProjection", "transformers.models.clip.modeling_clip"),
        ("SiglipTextModel", "transformers.models.siglip.modeling_siglip"),
        ("Siglip2TextModel", "transformers.models.siglip2.modeling_siglip2"),
        ("BertModel", "transformers.models.bert.modeling_bert"),
        ("LlamaForCausalLM", "transformers.models.llama.modeling_llama"),
    ],
)
def test_a_class_that_reads_no_images_is_refused(kind, library):
    with pytest.raises(Mismatch, match=f"base_model_class = {kind}"):
        Base(model_class=kind, library=library, where="c.json").check_encoder(["encoder.layers.0.self_attn.q_proj"])


@pytest.mark.parametrize(
    "kind",
    ["", "CLIPModel", "CLIPVisionModel", "SiglipVisionModel", "ViTModel", "VisionTextDualEncoderModel", "Dinov2Model"],
)
def test_a_class_that_reads_images_is_taken(kind):
    Base(model_class=kind, library="transformers.models.x", where="c.json").check_encoder(["layers.0.q"])


def test_updates_of_a_text_encoder_alone_are_refused_whatever_their_base_is():
    names = ["text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.1.self_attn.q_proj"]
    for base in (Base(), Base(model_class="CLIPModel", library="transformers.models.clip")):
        with pytest.raises(Mismatch, match=r"all updates are of the text encoder, such as text_model\.encoder"):
            base.check_encoder(names)
        base.check_encoder([*names, "vision_model.encoder.layers.0.self_attn.q_proj"])


def test_a_task_of_language_models_is_refused():
    with pytest.raises(Mismatch, match="task_type = CAUSAL_LM"):
        Base(task="CAUSAL_LM", where="c.json").check_encoder(["model.layers.0.self_attn.q_proj"])
    Base(task="FEATURE_EXTRACTION", where="c.json").check_encoder(["model.layers.0.self_attn.q_proj"])


@pytest.mark.parametrize(
    ("theirs", "ours", "gap"),
    [
        ("openai/clip-vit-base-patch32", B16, "its patch is 32, not 16"),
        ("openai/clip-vit-large-patch14", B16, "its size is large, not base"),
        ("openai/clip-vit-large-patch14-336", "openai/clip-vit-large-patch14-224", "its resolution is 336, not 224"),
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", B16, "its patch is 32, not 16"),
        ("google/siglip-base-patch16-224", B16, "its family is SigLIP, not CLIP"),
        ("/data/models/clip-vit-base-patch32", B16, "its patch is 32, not 16"),
        (B16, "ViT-L-14/openai", "its size is base, not large"),
    ],
)
def test_a_name_of_another_architecture_is_refused(theirs, ours, gap):
    with pytest.raises(Mismatch) as caught:
        doubt(Base(name=theirs, model_class="CLIPVisionModel", where="c.json"), ours)
    assert theirs in caught.value.message
    assert ours in caught.value.message
    assert caught.value.message.endswith(gap)


def test_a_class_of_another_family_is_refused():
    kind = {"model_class": "SiglipVisionModel", "library": "transformers.models.siglip.modeling_siglip"}
    with pytest.raises(Mismatch, match="its class is SiglipVisionModel, not one of CLIP"):
        doubt(Base(name="me/mine", where="c.json", **kind), B16)


@pytest.mark.parametrize(
    "name",
    [
        B16,
        "https://huggingface.co/openai/clip-vit-base-patch16",
        "/home/a/.cache/huggingface/hub/models--openai--clip-vit-base-patch16/snapshots/57c2",
        "./clip-vit-base-patch16",
    ],
)
def test_the_backbone_by_any_of_its_names_is_taken_silently(name):
    assert doubt(Base(name=name, model_class="CLIPVisionModel", where="c.json"), B16, "ViT-B-16/openai") == ""


def test_a_base_that_may_be_another_is_a_doubt():
    assert "does not record which model" in doubt(Base(), B16)
    assert "me/tuned-clip" in doubt(Base(name="me/tuned-clip", model_class="CLIPVisionModel"), B16)
    assert "which encoder" in doubt(Base(name=B16), B16)
    assert "which encoder" in doubt(Base(name=B16, model_class="CLIPEncoder"), B16)
    assert doubt(Base(name=B16, model_class="CLIPVisionEncoder"), B16) == ""


def folder(tmp_path: Path, lacks: str = "nothing", **config) -> Path:
    """A PEFT folder of a stranger for clipling, without the updates whose names have `lacks` in them."""
    write_adapter(
        tmp_path / "made", AdapterFile(LAYOUT, FLAT, {"fingerprint": MODEL.fingerprint}), MODEL, FORMATS["peft"]
    )
    weights, stated = tmp_path / "made/adapter_model.safetensors", tmp_path / "made/adapter_config.json"
    save_file({name: x for name, x in load_file(weights).items() if lacks not in name}, weights)
    stated.write_text(json.dumps({**json.loads(stated.read_text()), **config}))
    return tmp_path / "made"


TEXT = {"base_model_class": "CLIPTextModel", "parent_library": "transformers.models.clip.modeling_clip"}


def test_every_command_refuses_the_adapter_of_a_text_encoder(run, clipling, tmp_path):
    made = folder(tmp_path, auto_mapping=TEXT)
    before = sorted(tmp_path.rglob("*"))
    for arguments in (("import", made, "-o", tmp_path / "o.safetensors"), ("inspect", made)):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (5, "")
        assert "base_model_class = CLIPTextModel" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_inspect_shows_the_base(run, tmp_path):
    mapping = {**TEXT, "base_model_class": "CLIPVisionModel"}
    made = folder(tmp_path, base_model_name_or_path=B16, auto_mapping=mapping)
    assert f"base       {B16}, a CLIPVisionModel\n" in run("inspect", made).stdout
    stated = json.loads(run("inspect", made, "--json").stdout)["base"]
    assert (stated["name"], stated["class"]) == (B16, "CLIPVisionModel")


def test_an_unknown_base_is_warned_about_once(tmp_path):
    made = folder(tmp_path)
    with pytest.warns(SgloraWarning, match="made does not record which model it was trained on") as caught:
        read_adapter(made, MODEL, backbone="clipling")
    assert len(caught) == 1
    made = folder(tmp_path / "named", base_model_name_or_path="clipling")
    read_adapter(made, MODEL, backbone="clipling")


NAMES = ["q_proj", "k_proj", "v_proj"]
LACKING = {
    "layers": (
        "layers.3.",
        {"target_modules": NAMES, "layers_to_transform": [*range(12)]},
        r"layers\.3\..*layers_to_t",
    ),
    "one layer": ("layers.3.", {"target_modules": NAMES}, r"layers\.3\.self_attn\..* is missing"),
    "a target": ("k_proj", {"target_modules": NAMES}, "k_proj is missing"),
    "a target elsewhere": ("nothing", {"target_modules": [*NAMES, "fc1"]}, r"no update of 'fc1' \(target_modules\)"),
    "no such layer": ("nothing", {"target_modules": NAMES, "layers_to_transform": [*range(13)]}, "layer 12"),
    "all linear": ("layers.3.", {"target_modules": "all-linear"}, "target_modules all-linear"),
    "a pattern": ("k_proj", {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"k_proj": 3}}, "rank_pattern k_"),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_the_configuration_names_is_in_the_weights(tmp_path, case):
    lacks, config, message = LACKING[case]
    with pytest.raises(BadFile, match=message):
        read_adapter(folder(tmp_path, lacks, base_model_name_or_path="clipling", **config), MODEL, backbone="clipling")


def test_layers_that_are_not_named_may_lack(tmp_path):
    made = folder(
        tmp_path, "layers.3.", base_model_name_or_path="clipling", target_modules=NAMES,
        layers_to_transform=[n for n in range(12) if n != 3],
    )  # fmt: skip
    placed = read_adapter(made, MODEL, backbone="clipling")
    assert float(placed.parts[SITE.format(3, "q")][0].abs().max()) == 0
    assert float(placed.parts[SITE.format(4, "q")][0].abs().max()) > 0
