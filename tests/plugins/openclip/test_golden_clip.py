"""Full-size ViT-B/16 with random weights: ours, transformers + PEFT and open_clip compute the same features.

One transformers model is saved, and read by everybody. Differences are of unit vectors, in fp32.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from sglora_cli.adapter.file import AdapterFile
from sglora_cli.adapter.formats import FORMATS
from sglora_cli.adapter.read import read_adapter
from sglora_cli.adapter.write import write_adapter
from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import SgloraWarning
from sglora_cli.lora.algebra import update_error
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.sites import has_projection
from sglora_cli.testing import images

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
CLOSE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CLIPModel of ViT-B/16's size, saved as transformers saves it."""
    transformers, _ = pytest.importorskip("transformers"), pytest.importorskip("peft")
    torch.manual_seed(0)
    config = transformers.CLIPConfig()
    config.vision_config.patch_size = 16
    where = tmp_path_factory.mktemp("clip")
    transformers.CLIPModel(config).save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def model(folder):
    """The same weights as the default backbone reads them."""
    from sglora_openclip import sglora_backbones

    default = next(b for b in sglora_backbones() if b.name == "clip-vit-b-16")
    return default.load(RuntimeConfig(device="cpu", precision="fp32", weights=str(folder)))


@pytest.fixture(scope="module")
def pixels(model):
    return torch.stack([model._preprocess(image) for image in images(2)])


@pytest.fixture(scope="module", params=["attention", "projection", "both"])
def adapter(request, model):
    sites = {"attention": model.sites, "projection": (model.projection,), "both": (*model.sites, model.projection)}
    layout = Layout(tuple(sites[request.param]), 2, 3.0)
    if request.param == "attention":
        assert layout.size == 110592  # docs/method.md: 12 blocks x 3 matrices x 2 x 768 x 2
    flat_P = torch.randn(layout.size, generator=torch.Generator().manual_seed(1)) * (
        0.05 if request.param == "projection" else 0.02
    )
    metadata = {"backbone": "clip-vit-b-16", "fingerprint": model.fingerprint, "description": "a photo of a pug"}
    return AdapterFile(layout, flat_P, metadata)


@pytest.fixture(scope="module")
def ours(model, adapter):
    """Features without and with the adapter: they differ by far more than what counts as equal."""
    stem = model.stem(images(2))
    with torch.no_grad():
        adapted_ND = model.encode_image(stem, adapter.layout, adapter.flat_P[None])[0]
    assert float((adapted_ND - model.encode_image(stem)).abs().max()) > 100 * CLOSE
    return adapted_ND


def gap(features: torch.Tensor, ours: torch.Tensor) -> float:
    return float((F.normalize(features, dim=-1) - ours).abs().max())


def features_of(output) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def test_the_backbone_is_transformers_model(folder, model, pixels):
    import transformers

    theirs = transformers.CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        image = F.normalize(features_of(theirs.get_image_features(pixel_values=pixels)), dim=-1)
        tokens = model._tokenizer(["a photo of a pug", "a traffic light at night"])
        text = F.normalize(features_of(theirs.get_text_features(input_ids=tokens)), dim=-1)
    assert float((image - model.encode_image(model.stem(images(2)))).abs().max()) < CLOSE
    assert float((text - model.encode_text(["a photo of a pug", "a traffic light at night"])).abs().max()) < CLOSE
    assert model.scale == pytest.approx(float(theirs.logit_scale.detach().exp()))


@pytest.mark.parametrize(
    ("format", "kind"),
    [
        ("peft", "CLIPModel"),
        ("peft", "CLIPVisionModelWithProjection"),
        ("peft-flat", "CLIPVisionModel"),
    ],
)
def test_peft_reads_our_folder(folder, model, pixels, adapter, ours, tmp_path, format, kind):
    import transformers
    from peft import PeftModel

    if format == "peft-flat" and has_projection(model, adapter.layout):
        pytest.skip("CLIPVisionModel has no projection")
    write_adapter(tmp_path / "out", adapter, model, FORMATS[format])
    base = getattr(transformers, kind).from_pretrained(folder).eval()
    if format == "peft-flat" and hasattr(base, "vision_model"):
        pytest.skip("transformers before 5: CLIPVisionModel has the nested names")
    theirs = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    with torch.no_grad():
        if kind == "CLIPModel":
            features = features_of(theirs.get_image_features(pixel_values=pixels))
        elif kind == "CLIPVisionModelWithProjection":
            features = theirs(pixel_values=pixels).image_embeds
        else:
            features = theirs(pixel_values=pixels).pooler_output @ model.clip.visual.proj
    assert gap(features, ours) < CLOSE


def test_the_plain_file_is_a_peft_state(folder, pixels, model, adapter, ours, tmp_path):
    import transformers
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    write_adapter(tmp_path / "pug.safetensors", adapter, model, FORMATS["safetensors"])
    where = [site.name for site in adapter.layout.sites]
    base = transformers.CLIPModel.from_pretrained(folder).eval()
    theirs = get_peft_model(base, LoraConfig(r=2, lora_alpha=3, target_modules=where)).eval()
    result = set_peft_model_state_dict(theirs, load_file(tmp_path / "pug.safetensors"))
    assert not result.unexpected_keys
    with torch.no_grad():
        assert gap(features_of(theirs.get_image_features(pixel_values=pixels)), ours) < CLOSE


def test_open_clip_reads_the_merged_checkpoint(model, pixels, adapter, ours, tmp_path):
    import open_clip

    path = tmp_path / "merged.safetensors"
    write_adapter(path, adapter, model, FORMATS["open_clip"])
    theirs = open_clip.create_model("ViT-B-16-quickgelu", pretrained=str(path)).eval()
    with torch.no_grad():
        assert gap(theirs.encode_image(pixels), ours) < CLOSE
    assert_reads_back(path, model, adapter)


def test_clip_lora_s_loop_reads_its_file(model, pixels, adapter, ours, tmp_path):
    """As its loader does: layer_i is block i, and W + B A alpha / sqrt(r) with the file's own alpha and r."""
    if has_projection(model, adapter.layout):
        pytest.skip("CLIP-LoRA's format holds none")
    path = tmp_path / "pug.pt"
    write_adapter(path, adapter, model, FORMATS["clip-lora"])
    content = torch.load(path, weights_only=True)
    scaling = content["metadata"]["alpha"] / math.sqrt(content["metadata"]["r"])
    state = {name: tensor.clone() for name, tensor in model.clip.state_dict().items()}
    for i in range(12):
        layer = content["weights"][f"layer_{i}"]
        dense = torch.cat([layer[f"{x}_proj"]["w_lora_B"] @ layer[f"{x}_proj"]["w_lora_A"] for x in "qkv"])
        state[f"visual.transformer.resblocks.{i}.attn.in_proj_weight"] += dense * scaling
    with torch.no_grad():
        found = torch.func.functional_call(model.clip, state, (pixels,))[0]
    assert gap(found, ours) < CLOSE
    assert_reads_back(path, model, adapter)


def assert_reads_back(path, model, adapter):
    found_P, _ = read_adapter(path, model).fitted(adapter.layout)
    stem = model.stem(images(2))
    with torch.no_grad():
        one, other = model.encode_image(stem, adapter.layout, torch.stack([found_P, adapter.flat_P]))
    assert float((one - other).abs().max()) < CLOSE


@pytest.mark.filterwarnings("ignore:.*which may not be:sglora_cli.errors.SgloraWarning")
def test_an_adapter_that_peft_made_is_read(folder, model, pixels, tmp_path):
    import transformers
    from peft import LoraConfig, get_peft_model

    where = r".*vision_model\.encoder\.layers\.\d+\.self_attn\.(q_proj|k_proj|v_proj)|visual_projection"
    config = LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=where, init_lora_weights=False)
    theirs = get_peft_model(transformers.CLIPModel.from_pretrained(folder), config).eval()
    theirs.save_pretrained(tmp_path)
    foreign = read_adapter(tmp_path, model)
    layout = foreign.layout()
    assert has_projection(model, layout)
    with torch.no_grad():
        found = model.encode_image(model.stem(images(2)), layout, foreign.fitted(layout)[0][None])[0]
        assert gap(features_of(theirs.get_image_features(pixel_values=pixels)), found) < CLOSE


def test_a_model_that_peft_merged_is_read(folder, model, tmp_path):
    import peft
    import transformers

    base = transformers.CLIPModel.from_pretrained(folder)
    targets = r".*vision_model.*layers\.(0|11)\.self_attn\.(q_proj|v_proj)"
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=targets, init_lora_weights=False)
    trained = peft.get_peft_model(base, config)
    trained.save_pretrained(tmp_path / "adapter")
    trained.merge_and_unload().save_pretrained(tmp_path / "merged")
    state = load_file(tmp_path / "merged/model.safetensors")
    vision = {name: x for name, x in state.items() if name.startswith("vis")}  # as CLIPVisionModelWithProjection saves
    save_file(vision, tmp_path / "vision.safetensors")
    with pytest.warns(SgloraWarning, match="which may not be"):
        expected = read_adapter(tmp_path / "adapter", model)
    for path in ("merged", "merged/model.safetensors", "vision.safetensors"):
        merged = read_adapter(tmp_path / path, model)
        assert merged.rank == 4
        one_P, other_P = (one.fitted(expected.layout(4))[0] for one in (merged, expected))
        assert update_error(expected.layout(4), one_P, other_P) < 1e-3
