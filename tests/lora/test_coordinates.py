"""Numbers that networks see: the span of rows against an SVD of all of them, and what a projection keeps."""

from __future__ import annotations

import pytest
import torch

from sglora_cli.lora.coordinates import Scaling, projection, span
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.lora.prior import Prior

LAYOUT = Layout((Site("q", 6, 5),), rank=2, alpha=2.0)


def blocks_of(rows_NP: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    return list(rows_NP.split(sizes))


def test_the_span_of_blocks_is_that_of_all_rows_at_once():
    rng = torch.Generator().manual_seed(1)
    rows = torch.randn(40, 6, generator=rng) @ torch.randn(6, 90, generator=rng)
    square, basis, total = span(blocks_of(rows, [3, 17, 1, 19]), most=10)
    _, s, vh = torch.linalg.svd(rows.double())
    assert len(square) == 6  # the rows have no more directions
    assert torch.allclose(square, s[:6] ** 2, rtol=1e-5)
    assert torch.allclose(basis.double().T @ basis.double(), vh[:6].T @ vh[:6], atol=1e-5)
    assert total == pytest.approx(float(rows.double().square().sum()), rel=1e-6)


def test_a_span_cut_short_holds_nearly_what_the_best_one_holds():
    rows = torch.randn(200, 60, generator=torch.Generator().manual_seed(2)) * 0.9 ** torch.arange(60)
    _, basis, _ = span(blocks_of(rows, [20] * 10), most=24)
    best = torch.linalg.svd(rows)[2][:16]
    held, most = ((rows @ one.T).square().sum() for one in (basis[:16], best))
    assert 0.995 * most < held <= 1.00001 * most


class Experts:
    """More of them than coordinates, so that something is dropped."""

    layout = LAYOUT

    def __init__(self):
        rng = torch.Generator().manual_seed(7)
        self.mu, self.var = torch.randn(5, LAYOUT.size, generator=rng), torch.rand(5, LAYOUT.size, generator=rng)

    def means(self, rows=None):
        return self.mu if rows is None else self.mu[list(rows)]

    def variances(self, rows=None):
        return self.var if rows is None else self.var[list(rows)]


def projected(most, energy=1.0):
    """Experts that count as eight adapters each, and eight adapters of two tasks beside them."""
    experts = Experts()
    states = experts.mu[:2, None] + 0.1 * torch.randn(2, 8, LAYOUT.size, generator=torch.Generator().manual_seed(8))
    whole = Scaling.of(experts)
    everything = torch.cat([whole.inward(experts.mu) * 8**0.5, whole.inward(states).flatten(0, 1)])
    return whole, everything, states, *projection(everything.split([5, 8, 8]), whole, most, energy, count=56)


def test_numbers_are_centred_and_b_and_a_have_units_of_their_own():
    experts = Experts()
    numbers = Scaling.of(experts).inward(experts.mu)
    assert torch.allclose(numbers.mean(dim=0), torch.zeros(LAYOUT.size), atol=1e-6)
    within = experts.var / Scaling.of(experts).unit_P ** 2
    for part in (LAYOUT.b_mask(), ~LAYOUT.b_mask()):
        assert float((numbers**2 + within)[:, part].mean()) == pytest.approx(1.0, rel=1e-5)


def test_a_projection_keeps_what_lies_in_the_span_and_drops_the_rest():
    whole, everything, _, reduced, kept = projected(3)
    best = torch.linalg.svd(everything)[2][:3]
    assert kept == pytest.approx(float((everything @ best.T).square().sum() / everything.square().sum()), rel=1e-4)
    adapter = torch.randn(2, LAYOUT.size, generator=torch.Generator().manual_seed(9))
    nearest = whole.outward(whole.inward(adapter) @ best.T @ best)
    assert torch.allclose(reduced.outward(reduced.inward(adapter)), nearest, atol=0.01)
    assert torch.allclose(reduced.outside(whole.inward(adapter)), (adapter - nearest) / whole.unit_P, atol=0.01)
    centre = whole.centre_P[None]
    assert torch.equal(reduced.outward(reduced.inward(centre)), centre)


def test_squared_distances_are_those_of_all_numbers():
    whole, _, states, reduced, _ = projected(5)
    one, two = states[0, :1], states[1, 3:4]
    both = [(scaling.inward(one) - scaling.inward(two)).square().sum() * scaling.weight for scaling in (whole, reduced)]
    assert both[1] == pytest.approx(float(both[0]), rel=0.02)


def test_a_condition_has_the_deviations_of_coordinates():
    reduced = projected(3)[3]
    mean_P, variance_P = Experts().mu[2], torch.full((LAYOUT.size,), 0.01)
    prior = Prior(torch.zeros(5), (0,), torch.ones(1), mean_P, variance_P, variance_P, torch.zeros(4))
    rng = torch.Generator().manual_seed(0)
    drawn = prior.mean_P + prior.variance_P.sqrt() * torch.randn(20_000, LAYOUT.size, generator=rng)
    mean, deviation = reduced.condition(prior).chunk(2)
    assert torch.allclose(reduced.inward(drawn).mean(0), mean, atol=0.02)
    assert torch.allclose(reduced.inward(drawn).std(0), deviation, rtol=0.03)


def test_less_energy_needs_fewer_coordinates():
    _, everything, _, reduced, kept = projected(6, energy=0.8)
    held = torch.linalg.svdvals(everything.double()).square().cumsum(0) / everything.double().square().sum()
    assert reduced.size == 1 + int((held < 0.8).sum()) < 6
    assert kept == pytest.approx(float(held[reduced.size - 1]), rel=1e-4)
