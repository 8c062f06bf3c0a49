"""Backbones of open_clip: the tower against open_clip itself, names, and no network."""

from __future__ import annotations

import shutil
import socket

import open_clip
import pytest
import torch
import torch.nn.functional as F
from flops import shared_and_own
from small_clip import named, small_clip
from torch import nn

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import Mismatch, Unavailable, UnknownName, UsageError
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.sites import site_choices
from sglora_cli.testing import adapters, images, layout_of
from sglora_openclip import OpenClip, sglora_backbones, tokens


@pytest.fixture(scope="module")
def model():
    return small_clip()


def merged_features(model, flat_P):
    """What open_clip itself computes with the update added into its weights."""
    other = small_clip(timm=model.tower.timm)
    other.clip.load_state_dict(model.merged(layout_of(model), flat_P))
    pixels = torch.stack([model._preprocess(image) for image in images()])
    with torch.no_grad():
        return F.normalize(other.clip.encode_image(pixels), dim=-1)


@pytest.mark.parametrize("timm", [False, True], ids=["own tower", "timm trunk"])
def test_an_adapter_is_the_same_as_merged_weights(timm):
    model = small_clip(timm=timm)
    flat_TP = adapters(layout_of(model), 2)
    with torch.no_grad():
        ours_TND = model.encode_image(model.stem(images()), layout_of(model), flat_TP)
    for ours_ND, flat_P in zip(ours_TND, flat_TP, strict=True):
        assert float((ours_ND - merged_features(model, flat_P)).abs().max()) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_adapters_of_the_same_photos_share_the_frozen_products_of_the_first_block(precision):
    model = small_clip(precision=precision)
    layout, stem_N, flat_TP = layout_of(model), model.stem(images()), adapters(layout_of(model), 3)
    (shared_TND, fewer), (own_TND, all_of_them) = shared_and_own(model, stem_N, layout, flat_TP)
    assert torch.allclose(shared_TND, own_TND, atol=1e-6)
    count, tokens, width = stem_N.shape
    assert all_of_them - fewer == (3 - 1) * count * tokens * 2 * 3 * width**2


def test_unmerging_finds_the_update(model):
    layout, flat_P = layout_of(model), adapters(layout_of(model), 1)[0]
    updates = model.unmerged(model.merged(layout, flat_P))
    for name, (b, a) in layout.split(flat_P).items():
        assert torch.allclose(updates[name], b @ a * layout.scaling, atol=1e-6)


def test_a_checkpoint_that_differs_elsewhere_is_no_adapter(model):
    state = model.merged(layout_of(model), adapters(layout_of(model), 1)[0])
    state["visual.ln_pre.weight"] = state["visual.ln_pre.weight"] + 1
    with pytest.raises(Mismatch, match=r"visual.ln_pre.weight differs from the backbone's weight"):
        model.unmerged(state)


def gradient(model, flat_TP):
    flat_TP = flat_TP.clone().requires_grad_()
    image = model.encode_image(model.stem(images()), layout_of(model), flat_TP)
    return torch.autograd.grad((image * torch.linspace(-1, 1, image.shape[-1])).sum(), flat_TP)[0]


@pytest.mark.parametrize("timm", [False, True], ids=["own tower", "timm trunk"])
def test_recomputed_activations_give_the_same_gradient(timm):
    flat_TP = adapters(layout_of(small_clip(timm=timm)), 2)
    plain, again = (gradient(small_clip(timm=timm, checkpointing=on), flat_TP) for on in (False, True))
    assert torch.allclose(plain, again, atol=1e-6)
    assert float(plain.abs().max()) > 1e-3


@pytest.fixture
def graphs(monkeypatch):
    """Graphs that torch.compile was given, each whole: a graph break is an error."""
    compiled, real = [], torch.compile

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", lambda f: real(f, backend=backend, fullgraph=True))
    yield compiled
    torch.compiler.reset()


COMPILED = (
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
    pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0"),
)


def compiled(test):
    for mark in COMPILED:
        test = mark(test)
    return test


@compiled
@pytest.mark.parametrize("runtime", [{}, {"precision": "bf16"}, {"checkpointing": True}], ids=str)
def test_all_blocks_are_compiled_as_one_graph(runtime, graphs):
    model, plain = small_clip(compile=True, **runtime), small_clip(**runtime)
    flat_TP = adapters(layout_of(model), 2)
    assert torch.allclose(gradient(model, flat_TP), gradient(plain, flat_TP), atol=1e-5)
    with torch.no_grad():
        measured, wanted = (m.encode_image(m.stem(images()), layout_of(m), flat_TP) for m in (model, plain))
    assert torch.allclose(measured, wanted, atol=1e-5)
    assert len(graphs) == 2  # with gradients and without


@compiled
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs the compiler g++ on a CPU")
def test_the_code_that_torch_makes_of_the_graph_gives_the_same_gradient(model):
    flat_TP = adapters(layout_of(model), 2)
    assert torch.allclose(gradient(small_clip(compile=True), flat_TP), gradient(model, flat_TP), atol=1e-5)


def test_bf16_is_close_and_fp32_is_what_a_cpu_takes(model):
    half = small_clip(precision="bf16")
    assert (model.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    gap = float((half.encode_image(half.stem(images())) - model.encode_image(model.stem(images()))).abs().max())
    assert 0 < gap < 0.05
    for sites in site_choices(model)[1:]:
        layout = Layout(sites, 2, 4.0)
        one, other = (m.encode_image(m.stem(images()), layout, adapters(layout, 2)) for m in (half, model))
        assert one.dtype == torch.float32
        assert 0 < float((one - other).abs().max()) < 0.05
    assert (
        float(
            (gradient(half, adapters(layout_of(model), 1)) - gradient(model, adapters(layout_of(model), 1))).abs().max()
        )
        < 0.1
    )


@pytest.mark.parametrize(
    ("runtime", "error", "message"),
    [
        ({"device": "gpu"}, UsageError, "there is no device 'gpu'"),
        ({"device": "cuda:7"}, Unavailable, "device 'cuda:7' is not available, because PyTorch finds no CUDA GPU"),
        ({"precision": "fp8"}, UsageError, "precision must be auto, fp32, bf16, fp16, got 'fp8'"),
        ({"device": "cpu", "precision": "fp16"}, UsageError, "fp16 is not supported on a CPU"),
    ],
)
def test_a_device_or_precision_that_is_not_there_is_refused(runtime, error, message):
    from sglora_openclip.model import OpenClipModel

    with pytest.raises(error, match=message):
        OpenClipModel(small_clip().clip, "ViT-B-16", RuntimeConfig(**runtime))


class NextAttention(nn.Module):
    """An attention class of its own with nn.MultiheadAttention's parameter names, as open_clip 4 has it."""

    def __init__(self, old: nn.MultiheadAttention) -> None:
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = old.in_proj_weight, old.in_proj_bias
        self.out_proj, self.num_heads = old.out_proj, old.num_heads

    def forward(self, x, attn_mask=None):
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for y in (q, k, v))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask).transpose(1, 2).flatten(2))


def test_the_attention_of_the_next_open_clip_works_too(model):
    from sglora_openclip.model import OpenClipModel

    clip = small_clip().clip
    for block in clip.visual.transformer.resblocks:
        block.attn = NextAttention(block.attn)
    after = OpenClipModel(clip, "ViT-B-16", RuntimeConfig(device="cpu"))
    flat_TP = adapters(layout_of(model), 2)
    assert after.sites == model.sites
    assert torch.allclose(gradient(after, flat_TP), gradient(model, flat_TP), atol=1e-6)


def test_an_encoder_that_takes_no_adapters_is_refused():
    from sglora_openclip.model import OpenClipModel

    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    clip = open_clip.CLIP(8, {"layers": (1, 1, 1, 1), "width": 8, "image_size": 32, "head_width": 8}, text)
    with pytest.raises(
        Mismatch, match="the visual encoder is a ModifiedResNet, but adapters need a plain vision transformer"
    ):
        OpenClipModel(clip, "RN50", RuntimeConfig(device="cpu"))


def test_a_long_sentence_is_refused_and_a_long_caption_cut(model):
    with pytest.raises(Mismatch, match="the sentence has 82 tokens, the limit is 77"):
        model.check_text("very " * 80)
    assert model.encode_text(["very " * 80]).shape == (1, 16)


def family(name: str):
    return next(b for b in sglora_backbones() if b.name == name)


def test_names_are_read():
    assert family("open_clip").member("ViT-L-14/laion2b_s32b_b82k") == OpenClip(
        "open_clip:ViT-L-14/laion2b_s32b_b82k", "ViT-L-14", "laion2b_s32b_b82k", "any vision transformer of open_clip"
    )
    assert family("hf-hub").member("timm/ViT-B-16-SigLIP").architecture == "hf-hub:timm/ViT-B-16-SigLIP"
    with pytest.raises(UsageError, match="backbone 'open_clip' is a family"):
        family("open_clip").load(RuntimeConfig())
    with pytest.raises(UnknownName, match="no architecture in open_clip named 'ViT-B-61'"):
        named("ViT-B-61").load(RuntimeConfig())
    with pytest.raises(UnknownName, match="no weights of ViT-L-14 in open_clip named 'laion'"):
        named("ViT-L-14", "laion").load(RuntimeConfig())
    with pytest.raises(UsageError, match=r"does not accept --weights"):
        family("hf-hub").member("timm/x").load(RuntimeConfig(weights="x.pt"))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_without_network_the_default_backbone_says_what_to_do(no_network):
    with pytest.raises(Unavailable) as e:
        family("clip-vit-b-16").load(RuntimeConfig())
    assert str(e.value) == (
        "weights of ViT-B-16-quickgelu/openai could not be found in open_clip's cache or downloaded: "
        "huggingface.co cannot be reached"
    )
    assert e.value.hint == (
        "pass --weights FILE (or set SGLORA_WEIGHTS), or use the backbone starter, which needs no download"
    )


def test_offline_asks_nothing(no_network, monkeypatch):
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("it asked"))
    with pytest.raises(Unavailable, match="downloaded: SGLORA_OFFLINE is set"):
        family("clip-vit-b-16").load(RuntimeConfig())


@pytest.mark.parametrize("architecture", ["ViT-B-16", "RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32"])
def test_how_much_a_text_encoder_reads_is_known_without_weights(architecture):
    text_config = open_clip.get_model_config(architecture)["text_cfg"]
    assert OpenClip("x", architecture, "tag", "summary").token_limit() == text_config["context_length"]


@pytest.mark.parametrize("mode", ["", "clips"])
def test_tokens_of_other_tokenizers_are_counted_with_their_frame(tmp_path, mode):
    """An oracle: the tokens that open_clip itself makes of a text with room for all of it, but for the filling."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: n for n, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "a", "dog", "cat"])}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    plain.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", cls_token="cat"
    ).save_pretrained(tmp_path)
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=8, tokenizer_mode=mode or None)
    texts = ["a dog", "a  dog a\tdog a cat and a dog a cat", ""]
    whole = tokenizer(texts, context_length=100)
    assert tokens.count(tokenizer, texts) == [int((row != 0).sum()) for row in whole]
    assert tokens.limit(tokenizer) == 8
