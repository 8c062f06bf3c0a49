"""The gauge of a pack: no update changes, equal updates get equal factors, and no rotation comes closer."""

from __future__ import annotations

import pytest
import torch
from random_factors import factors, seeded

from sglora_cli.errors import Mismatch
from sglora_cli.lora.gauge import gauge_distance, gauge_of, into_gauge, join_gauge
from sglora_cli.lora.layout import Layout, Site

LAYOUT = Layout((Site("q", 9, 7), Site("k", 5, 11), Site("v", 9, 7)), rank=2, alpha=3.0)


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("live", [0, 1, 2, 3, 4])
def test_the_gauge_changes_no_update_and_comes_closest(rank, live):
    reference = torch.randn(rank, 30, generator=seeded(7))
    b, a = factors(20, 30, rank=rank)
    b[:, live:] = 0
    new_b, new_a = into_gauge(b, a, reference)
    assert torch.allclose(new_b @ new_a, b @ a, atol=2e-5)
    assert float(new_a.norm()) == pytest.approx(float(reference.norm()), rel=1e-5)
    again_b, again_a = into_gauge(new_b, new_a, reference)
    assert torch.allclose(again_a, new_a, atol=1e-4)
    assert torch.allclose(again_b, new_b, atol=1e-4)
    for seed in range(20):  # no other rotation of A' is closer
        rotation = torch.linalg.qr(torch.randn(rank, rank, generator=seeded(seed))).Q
        assert gauge_distance(new_a, reference) <= gauge_distance(rotation @ new_a, reference) + 1e-6


def test_any_gauge_of_one_update_becomes_the_same_factors():
    reference = torch.randn(2, 30, generator=seeded(7))
    b, a = factors(20, 30, rank=2)
    mixing = torch.tensor([[3.0, 1.0], [-2.0, 0.1]])
    one, other = into_gauge(b, a, reference), into_gauge(b @ mixing, torch.linalg.inv(mixing) @ a, reference)
    assert torch.allclose(one[0], other[0], atol=1e-4)
    assert torch.allclose(one[1], other[1], atol=1e-4)


def test_a_gauge_needs_one_rank():
    with pytest.raises(Mismatch, match="cannot share a gauge"):
        into_gauge(torch.zeros(4, 2), torch.zeros(2, 5), torch.zeros(3, 5))


def trained(seed: int) -> torch.Tensor:
    """An adapter as training leaves it: A near the shared initialisation, B anything."""
    noise = torch.randn(LAYOUT.size, generator=seeded(seed))
    return LAYOUT.initial(0) + torch.where(LAYOUT.b_mask(), noise, 0.02 * noise)


def test_an_adapter_in_the_packs_gauge_is_left_untouched():
    experts = torch.stack([trained(seed) for seed in range(6)])
    joined = join_gauge(LAYOUT, experts[2:3], gauge_of(LAYOUT, lambda: [experts]))
    assert torch.equal(joined.states_MP, experts[2:3])
    assert joined.before == joined.after <= joined.reach < 0.2


def test_a_rotated_adapter_comes_back_to_the_packs_gauge():
    experts = torch.stack([trained(seed) for seed in range(6)])
    parts = {}
    for name, (b, a) in LAYOUT.split(trained(9)).items():
        turn = torch.tensor([[0.0, -2.0], [0.5, 1.0]])
        parts[name] = (b @ torch.linalg.inv(turn), turn @ a)
    foreign = LAYOUT.join(parts)[None]
    joined = join_gauge(LAYOUT, foreign, gauge_of(LAYOUT, lambda: [experts]))
    assert joined.before > 1
    assert joined.after < joined.before / 2
    for (b, a), (c, d) in zip(
        LAYOUT.split(joined.states_MP[0]).values(), LAYOUT.split(trained(9)).values(), strict=True
    ):
        assert torch.allclose(b @ a, c @ d, atol=1e-4)


def test_the_gauge_of_experts_is_the_same_however_many_are_read_at_once():
    experts = torch.stack([trained(seed) for seed in range(6)])
    whole, parts = (gauge_of(LAYOUT, lambda n=n: experts.split(n)) for n in (6, 2))
    assert torch.allclose(whole.mean_P, experts.double().mean(dim=0))
    assert torch.allclose(whole.mean_P, parts.mean_P)
    assert whole.farthest == pytest.approx(parts.farthest)
    a_ERI = LAYOUT.split(experts)["k"][1].double()
    assert whole.farthest[1] == pytest.approx(
        max(float((a - a_ERI.mean(0)).norm() / a_ERI.mean(0).norm()) for a in a_ERI)
    )
    assert max(whole.farthest) >= whole.reach == pytest.approx(parts.reach)
