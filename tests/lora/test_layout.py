"""Layouts: an adapter as numbers, its norm against dense matrices, what it survives."""

from __future__ import annotations

import pytest
import torch
from random_factors import seeded

from sglora_cli.errors import Mismatch
from sglora_cli.lora import layout
from sglora_cli.lora.layout import Layout, Site, mix

LAYOUT = Layout((Site("q", 5, 4), Site("k", 3, 4)), rank=2, alpha=3.0)


def test_an_adapter_is_b_then_a_of_each_site():
    flat = torch.arange(float(LAYOUT.size))
    b, a = LAYOUT.split(flat)["q"]
    assert b.shape == (5, 2)
    assert a.shape == (2, 4)
    assert b.flatten().tolist() == list(range(10))
    assert a.flatten().tolist() == list(range(10, 18))
    assert torch.equal(LAYOUT.join(LAYOUT.split(flat)), flat)


def test_update_norm_is_that_of_the_dense_update():
    flat = torch.randn(3, LAYOUT.size, generator=torch.Generator().manual_seed(0))
    dense = [1.5 * b @ a for b, a in LAYOUT.split(flat).values()]
    expected = torch.stack([d.flatten(1).square().sum(dim=1) for d in dense]).sum(dim=0).sqrt()
    assert torch.allclose(LAYOUT.update_norm(flat), expected, rtol=1e-5)


def test_the_initial_adapter_changes_nothing_and_follows_its_seed():
    assert float(LAYOUT.update_norm(LAYOUT.initial(0))) == 0
    assert torch.equal(LAYOUT.initial(0), LAYOUT.initial(0))
    assert not torch.equal(LAYOUT.initial(0), LAYOUT.initial(1))


def test_a_layout_survives_being_written():
    assert Layout.restore(LAYOUT.to_json()) == LAYOUT
    with pytest.raises(Mismatch, match="not a LoRA layout"):
        Layout.restore({"rank": 0, "alpha": 1, "sites": [["q", 1, 1]]})


def test_the_wrong_number_of_numbers_is_refused():
    with pytest.raises(Mismatch, match=f"has {LAYOUT.size} parameters, got 7"):
        LAYOUT.split(torch.zeros(7))


@pytest.mark.parametrize("at_once", [1, 45, 1 << 22])
@pytest.mark.parametrize("count", [1, 7])
def test_several_mixes_and_sums_in_parts_are_as_one(count, at_once, monkeypatch):
    monkeypatch.setattr(layout, "MIXED", at_once)
    weights_SK, adapters_KP = torch.randn(3, count, generator=seeded()), torch.randn(count, 20, generator=seeded(1))
    mixed_SP = mix(weights_SK, adapters_KP)
    assert mixed_SP.dtype == torch.float32
    for weights_K, mixed_P in zip(weights_SK, mixed_SP, strict=True):
        assert torch.allclose(mix(weights_K, adapters_KP), mixed_P, atol=1e-6)
        assert torch.allclose(sum(w * x for w, x in zip(weights_K, adapters_KP, strict=True)), mixed_P, atol=1e-5)
    assert not mix(torch.ones(0), torch.ones(0, 20)).any()


def test_mix_is_the_weighted_sum():
    x = torch.randn(3, 6)
    assert torch.allclose(mix(torch.tensor([0.5, 0.5, 0.0]), x), (x[0] + x[1]) / 2)
