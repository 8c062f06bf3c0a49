"""q, k, v of torch modules: found however they are stored, adapted as if merged, and let go of again."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sglora_cli.errors import Mismatch
from sglora_cli.lora.attention import AttentionSites, packed_attention
from sglora_cli.lora.layout import Layout

WIDTH = 12


class Separate(nn.Module):
    def __init__(self, names=("q_proj", "k_proj", "v_proj")):
        super().__init__()
        self.names = names
        for name in names:
            setattr(self, name, nn.Linear(WIDTH, WIDTH))

    def forward(self, x):
        q, k, v = (getattr(self, name)(x) for name in self.names)
        return F.scaled_dot_product_attention(q, k, v)


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x):
        return F.scaled_dot_product_attention(*self.qkv(x).chunk(3, dim=-1))


class Packed(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, 3, batch_first=batch_first)

    def forward(self, x):
        x = x if self.attn.batch_first else x.transpose(0, 1)
        y = self.attn(x, x, x, need_weights=False)[0]
        return y if self.attn.batch_first else y.transpose(0, 1)


def torchs_own():
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(WIDTH, 3, 24, dropout=0.0, batch_first=True), 2, enable_nested_tensor=False
    )


KINDS = {
    "separate": Separate,
    "query, key, value": lambda: Separate(("query", "key", "value")),
    "fused": Fused,
    "packed": Packed,
    "packed, tokens first": lambda: Packed(batch_first=False),
    "torch's encoder": torchs_own,
}


@pytest.fixture(params=KINDS)
def root(request):
    torch.manual_seed(0)
    return nn.Sequential(KINDS[request.param](), KINDS[request.param]()).eval()


def state(root):
    return {name: tensor.clone() for name, tensor in root.state_dict().items()}


@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
def test_attached_is_merged(root, grad):
    sites = AttentionSites(root)
    layout = Layout(sites.sites, 2, 3.0)
    flat_TP, x = torch.randn(3, layout.size) * 0.3, torch.randn(3 * 2, 5, WIDTH)
    with torch.set_grad_enabled(grad), sites.attached(sites.updates(layout, flat_TP)):
        output = root(x)
    plain = state(root)
    for t, flat_P in enumerate(flat_TP):
        root.load_state_dict(sites.merged(plain, layout, flat_P))
        with torch.no_grad():
            expected = root(x[2 * t : 2 * t + 2])
        assert torch.allclose(output[2 * t : 2 * t + 2], expected, atol=1e-5)
        root.load_state_dict(plain)
        assert not torch.allclose(root(x[2 * t : 2 * t + 2]), expected, atol=1e-3)


def test_nothing_is_left_behind_even_by_an_exception(root):
    sites = AttentionSites(root)
    layout = Layout(sites.sites, 2, 2.0)
    before, x = state(root), torch.randn(2, 5, WIDTH)
    forwards = {path: module.forward.__func__ for path, module in root.named_modules()}
    expected = root(x)

    def crash():
        with sites.attached(sites.updates(layout, torch.randn(1, layout.size))):
            root(x)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crash()
    assert torch.equal(root(x), expected)
    assert all(torch.equal(before[name], tensor) for name, tensor in root.state_dict().items())
    assert forwards == {path: module.forward.__func__ for path, module in root.named_modules()}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in root.modules())


def test_sites_are_in_layer_order_and_named_by_path():
    names = [site.name for site in AttentionSites(nn.Sequential(Separate(), Fused(), Packed())).sites]
    assert names == [
        *("0.q_proj", "0.k_proj", "0.v_proj"),
        *("1.qkv.q", "1.qkv.k", "1.qkv.v"),
        *("2.attn.q", "2.attn.k", "2.attn.v"),
    ]


def test_a_module_without_attention_is_refused():
    with pytest.raises(Mismatch, match="Linear has no self-attention with a supported layout of q, k and v"):
        AttentionSites(nn.Linear(2, 2))


def test_an_attention_of_another_kind_is_refused():
    root = Packed()
    root.attn.bias_k = nn.Parameter(torch.zeros(1, 1, WIDTH))
    with pytest.raises(Mismatch, match="adapters are not supported for the attention attn"):
        AttentionSites(root)


def test_cross_attention_and_unknown_masks_are_refused():
    root = Packed()
    sites = AttentionSites(root)
    layout, x = Layout(sites.sites, 1, 1.0), torch.randn(1, 5, WIDTH)
    with sites.attached(sites.updates(layout, torch.randn(1, layout.size))):
        with pytest.raises(Mismatch, match="only support self-attention"):
            root.attn(x, x + 1, x + 1)
        with pytest.raises(Mismatch, match="not key_padding_mask"):
            root.attn(x, x, x, key_padding_mask=torch.zeros(1, 5, dtype=torch.bool))


def test_another_layout_is_refused():
    sites = AttentionSites(Fused())
    with pytest.raises(Mismatch, match="the adapter's sites do not match the backbone's"):
        sites.updates(Layout(sites.sites[:2], 1, 1.0), torch.zeros(1, 4))


def test_the_gradient_is_that_of_the_merged_weights():
    torch.manual_seed(0)
    root = nn.Sequential(Packed(), Fused())
    sites = AttentionSites(root)
    layout, x = Layout(sites.sites, 2, 2.0), torch.randn(2, 5, WIDTH)
    flat_P = (torch.randn(layout.size) * 0.3).requires_grad_()
    with sites.attached(sites.updates(layout, flat_P[None])):
        (gradient_P,) = torch.autograd.grad(root(x).square().sum(), flat_P)
    weights = sites.merged({n: p.detach() for n, p in root.named_parameters()}, layout, flat_P)
    (expected,) = torch.autograd.grad(torch.func.functional_call(root, weights, x).square().sum(), flat_P)
    assert torch.allclose(gradient_P, expected, atol=1e-4)


@pytest.mark.parametrize("queries", [None, 1], ids=["all tokens", "one token"])
def test_frozen_products_of_shared_inputs_are_computed_once_for_all_adapters(queries):
    torch.manual_seed(0)
    module = Packed().eval().requires_grad_(False).attn
    sites = AttentionSites(module)
    layout, x_NLI = Layout(sites.sites, 2, 2.0), torch.randn(2, 5, WIDTH)
    flat_TP = (torch.randn(3, layout.size) * 0.3).requires_grad_()

    def run(x, shared):
        (update,) = sites.updates(layout, flat_TP)
        with FlopCounterMode(display=False) as counter:
            y = packed_attention(module, x, update, queries, shared=shared)
        return y, torch.autograd.grad(y.square().sum(), flat_TP)[0], counter.get_total_flops()

    once, repeated = run(x_NLI, True), run(x_NLI.repeat(3, 1, 1), False)
    assert torch.allclose(once[0], repeated[0], atol=1e-6)
    assert torch.allclose(once[1], repeated[1], atol=1e-5)
    products = 2 * 5 * 3 if queries is None else 2 * (5 * 2 + 1)  # of tokens with the weights of q, k and v
    assert repeated[2] - once[2] == (3 - 1) * products * 2 * WIDTH**2
