"""Backbones of open_clip in bf16: frozen copies of the blocks, and how near they are to float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_clip import small_clip
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sglora_cli.lora.attention import attached
from sglora_cli.testing import adapters, images, layout_of
from sglora_openclip.tower import folded

TOWERS = pytest.mark.parametrize("timm", [False, True], ids=["own tower", "timm trunk"])


@TOWERS
def test_what_is_written_has_the_weights_as_they_were_loaded(timm):
    half, full = small_clip(timm=timm, precision="bf16"), small_clip(timm=timm)
    layout = layout_of(full)
    flat_P = adapters(layout, 1)[0]
    half.encode_image(half.stem(images()), layout, flat_P[None])
    assert half.fingerprint == full.fingerprint
    theirs = full.merged(layout, flat_P)
    assert all(torch.equal(weight, theirs[name]) for name, weight in half.merged(layout, flat_P).items())
    if not timm:
        assert torch.equal(half.projection_weight(), full.projection_weight())


class Casts(TorchDispatchMode):
    """Sizes of the weights that change their type inside the block."""

    def __init__(self, model) -> None:
        super().__init__()
        self.weights = {w.data_ptr() for block in model.tower.blocks for w in block.parameters() if w.ndim == 2}
        self.sizes: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.weights:
            self.sizes.append(args[0].numel())
        return function(*args, **(kwargs or {}))


@TOWERS
def test_no_frozen_weight_of_a_block_is_cast_in_a_step(timm):
    model = small_clip(timm=timm, precision="bf16")
    layout, stem = layout_of(model), model.stem(images())
    assert {w.dtype for block in model.tower.blocks for w in block.parameters() if w.ndim == 2} == {torch.bfloat16}
    with Casts(model) as casts:
        model.encode_image(stem, layout, adapters(layout, 2).requires_grad_()).sum().backward()
    assert casts.weights
    assert casts.sizes == []


def quick_gelu_mlp(*between: nn.Module) -> nn.Sequential:
    from open_clip.transformer import QuickGELU

    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(12, 48), QuickGELU(), *between, nn.Linear(48, 12))
    return layers.double().requires_grad_(False)


@pytest.mark.parametrize("between", [(), (nn.Identity(),)], ids=["plain", "with an identity"])
def test_quick_gelu_folded_into_the_linears_is_quick_gelu(between):
    x = torch.randn(5, 12, dtype=torch.float64)
    wanted = quick_gelu_mlp(*between)(x)
    once = folded(quick_gelu_mlp(*between))
    assert [type(layer) for layer in once] == [nn.Linear, nn.SiLU, nn.Linear]
    assert torch.allclose(once(x), wanted, atol=1e-14)


def test_another_activation_and_a_norm_between_the_linears_are_left_alone():
    for layers in (quick_gelu_mlp(nn.LayerNorm(48, dtype=torch.float64)), nn.Sequential(nn.Linear(2, 2), nn.GELU())):
        before = [weight.clone() for weight in layers.parameters()]
        assert folded(layers) is layers
        assert all(torch.equal(*pair) for pair in zip(before, layers.parameters(), strict=True))


@pytest.mark.parametrize(("precision", "activation"), [("fp32", "QuickGELU"), ("bf16", "SiLU")])
def test_only_copies_are_folded(precision, activation):
    model = small_clip(precision=precision)
    assert {type(block.mlp[1]).__name__ for block in model.tower.blocks} == {activation}
    assert {type(block.mlp[1]).__name__ for block in model.clip.visual.transformer.resblocks} == {"QuickGELU"}


def loss(image_ND: torch.Tensor) -> torch.Tensor:
    text_ND = F.normalize(torch.randn(image_ND.shape, generator=torch.Generator().manual_seed(1)), dim=-1)
    return F.cross_entropy(20 * image_ND @ text_ND.T, torch.arange(len(image_ND)))


def errors(image_ND, flat_P, gold_ND, gold_P) -> torch.Tensor:
    """Of the embeddings (mean length) and of the gradient (relative)."""
    (gradient_P,) = torch.autograd.grad(loss(image_ND), flat_P)
    lengths = (image_ND - gold_ND).detach().norm(dim=1)
    return torch.stack([lengths.mean(), (gradient_P - gold_P).norm() / gold_P.norm()])


def test_what_is_measured_in_bf16_is_nearer_to_float32_than_autocast_and_gradients_are_about_as_near():
    """The oracle is open_clip's own encoder under torch.autocast with the adapter attached. Means over ten adapters."""
    full, half = small_clip(), small_clip(precision="bf16")
    layout, visual = layout_of(full), full.clip.visual
    stem_N = full.tower.tokens(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    auto, ours, measured = [], [], []
    for flat_P in adapters(layout, 10):
        flat_P = flat_P.clone().requires_grad_()
        gold_ND = full.encode_image(stem_N, layout, flat_P[None])[0]
        gold = gold_ND.detach(), *torch.autograd.grad(loss(gold_ND), flat_P)
        with attached(visual, layout, flat_P), torch.autocast("cpu", torch.bfloat16):
            theirs_ND = visual._pool(visual.transformer(stem_N))[0] @ visual.proj
        auto.append(errors(F.normalize(theirs_ND.float(), dim=-1), flat_P, *gold))
        ours.append(errors(half.encode_image(stem_N, layout, flat_P[None])[0], flat_P, *gold))
        with torch.no_grad():
            measured.append((half.encode_image(stem_N, layout, flat_P[None])[0] - gold[0]).norm(dim=1).mean())
    auto_image, auto_gradient = torch.stack(auto).mean(dim=0).tolist()
    image, gradient = torch.stack(ours).mean(dim=0).tolist()
    assert float(torch.stack(measured).mean()) < auto_image
    assert image < 2 * auto_image < 0.01  # the sums of the residual stream are rounded, too
    assert gradient < 1.5 * auto_gradient < 0.015
