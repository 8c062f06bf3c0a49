"""Low-rank mathematics against dense matrices."""

from __future__ import annotations

import numpy
import pytest
import torch
from random_factors import dense_update, factors, seeded

from sglora_cli.errors import Mismatch
from sglora_cli.lora.algebra import (
    Similarity,
    approximate,
    compress,
    compress_all,
    distances,
    inner_products,
    joined,
    mix_updates,
    similarity,
)
from sglora_cli.lora.layout import Layout, Site

LAYOUT = Layout((Site("q", 9, 7), Site("k", 5, 11), Site("v", 9, 7)), rank=2, alpha=3.0)


def best(dense: torch.Tensor, rank: int) -> torch.Tensor:
    """The slow, obvious definition."""
    u, s, vh = torch.linalg.svd(dense.double(), full_matrices=False)
    return (u[..., :rank] * s[..., None, :rank]) @ vh[..., :rank, :]


@pytest.mark.parametrize("shape", [(9, 7), (7, 9), (3, 9, 7), (2, 3, 5, 5), (1, 1)])
@pytest.mark.parametrize("given", [1, 2, 4, 6, 12])
@pytest.mark.parametrize("rank", [1, 2, 3, 8])
def test_compress_is_the_best_approximation(shape, given, rank):
    b, a = factors(*shape, rank=given)
    dense = b.double() @ a.double()
    new_b, new_a, error = compress(b, a, rank)
    assert new_b.shape == (*shape[:-1], rank)
    assert new_a.shape == (*shape[:-2], rank, shape[-1])
    assert new_b.dtype == new_a.dtype == torch.float32
    assert torch.allclose((new_b @ new_a).double(), best(dense, rank), atol=1e-4)
    expected = (dense - best(dense, rank)).norm(dim=(-2, -1)) / dense.norm(dim=(-2, -1))
    assert torch.allclose(error, expected, atol=1e-7)
    assert torch.allclose(new_b.mT @ new_b, new_a @ new_a.mT, atol=1e-3)


def test_an_update_of_zero_stays_zero():
    b, a, error = compress(torch.zeros(3, 9, 4), torch.randn(3, 4, 7), 2)
    assert not b.any()
    assert error.tolist() == [0, 0, 0]
    assert not a.any()


def test_a_higher_rank_loses_nothing_and_pads_with_zeros():
    b, a = factors(9, 7, rank=2)
    new_b, new_a, error = compress(b, a, 5)
    assert float(error) == 0
    assert not new_b[:, 2:].any()
    assert not new_a[2:].any()
    assert torch.allclose(new_b @ new_a, b @ a, atol=1e-5)


def test_factors_that_do_not_fit_are_refused():
    with pytest.raises(Mismatch, match=r"shapes \(9, 3\) and \(2, 7\) are incompatible"):
        compress(torch.zeros(9, 3), torch.zeros(2, 7), 1)
    with pytest.raises(Mismatch, match="rank must be at least 1, got 0"):
        compress(torch.zeros(9, 3), torch.zeros(3, 7), 0)


def test_sites_of_all_shapes_and_ranks_are_compressed_as_if_alone():
    parts = {"q": factors(9, 7, rank=4), "k": factors(5, 11, rank=3, seed=5), "v": factors(9, 7, rank=4, seed=9)}
    compressed, error = compress_all(parts, 2)
    assert list(compressed) == list(parts)
    lost = whole = 0.0
    for name, (b, a) in parts.items():
        expected = best(b @ a, 2)
        assert torch.allclose((compressed[name][0] @ compressed[name][1]).double(), expected, atol=1e-4)
        lost += float((b.double() @ a.double() - expected).square().sum())
        whole += float((b.double() @ a.double()).square().sum())
    assert error == pytest.approx((lost / whole) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [1.0, -0.5, 0.25], [0.0, 0.0, 0.0]])
def test_mix_updates_is_the_best_approximation_of_the_dense_mean(weights):
    adapters = torch.randn(3, LAYOUT.size, generator=seeded())
    mixed, error = mix_updates(torch.tensor(weights), adapters, LAYOUT)
    lost = whole = 0.0
    for name, (b, a) in LAYOUT.split(mixed).items():
        dense = sum(
            w * (x.double() @ y.double()) for w, x, y in zip(weights, *LAYOUT.split(adapters)[name], strict=True)
        )
        assert torch.allclose((b @ a).double(), best(dense, 2), atol=1e-4)
        lost, whole = (
            lost + float((dense - best(dense, 2)).square().sum()),
            whole + float(dense.square().sum()),
        )
    assert error == pytest.approx((lost / whole) ** 0.5 if whole else 0.0, rel=1e-5, abs=1e-7)


def test_mixing_one_adapter_with_itself_gives_its_update_exactly():
    flat = torch.randn(1, LAYOUT.size, generator=seeded())
    mixed, error = mix_updates(torch.tensor([0.25, 0.75]), flat.expand(2, -1), LAYOUT)
    assert error < 1e-7
    for (b, a), (c, d) in zip(LAYOUT.split(mixed).values(), LAYOUT.split(flat[0]).values(), strict=True):
        assert torch.allclose(b @ a, c @ d, atol=1e-5)


def test_one_weight_an_adapter():
    with pytest.raises(Mismatch, match="2 weights do not match 3 adapters"):
        mix_updates(torch.ones(2), torch.zeros(3, LAYOUT.size), LAYOUT)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_dense_matrix_of_low_rank_is_found_and_another_is_measured(rank):
    b, a = factors(40, 30, rank=rank)
    found_b, found_a, error = approximate(b @ a, rank)
    assert float(error) < 1e-6
    assert torch.allclose(found_b @ found_a, b @ a, atol=1e-4)
    dense = torch.randn(40, 30, generator=seeded())
    _, _, error = approximate(dense, rank)
    exact = float((dense.double() - best(dense, rank)).norm() / dense.double().norm())
    assert exact - 1e-6 <= float(error) < exact + 0.02
    assert float(approximate(torch.zeros(4, 3), rank)[2]) == 0


def test_inner_products_and_distances_are_those_of_dense_updates():
    flat = torch.randn(4, LAYOUT.size, generator=seeded())
    parts = [LAYOUT.split(x).values() for x in flat]
    rows = torch.stack([torch.cat([(LAYOUT.scaling * b @ a).double().flatten() for b, a in part]) for part in parts])
    assert torch.allclose(inner_products(LAYOUT, flat), rows @ rows.T, rtol=1e-5)
    assert torch.allclose(distances(inner_products(LAYOUT, flat)), torch.cdist(rows, rows), atol=1e-3)
    assert torch.allclose(inner_products(LAYOUT, flat).diagonal().sqrt().float(), LAYOUT.update_norm(flat), rtol=1e-5)


@pytest.mark.parametrize("ranks", [(1, 1), (2, 5), (12, 3)])  # of 9 x 7: also higher than the update can have
@pytest.mark.parametrize("shape", [(9, 7), (7, 9), (1, 5)])
def test_similarity_is_that_of_dense_updates_whatever_their_ranks(shape, ranks):
    one, other = factors(*shape, rank=ranks[0]), factors(*shape, rank=ranks[1], seed=5)
    x, y = ((b.double() @ a.double()).flatten().numpy() for b, a in (one, other))
    alike = similarity(one, other)
    assert alike.cosine == pytest.approx(x @ y / numpy.linalg.norm(x) / numpy.linalg.norm(y))
    assert alike.norm_x == pytest.approx(numpy.linalg.norm(x))
    assert alike.norm_y == pytest.approx(numpy.linalg.norm(y))
    assert alike.difference == pytest.approx(numpy.linalg.norm(x - y))


def test_similarity_over_sites_is_that_of_all_numbers_behind_one_another():
    one, other = torch.randn(2, LAYOUT.size, generator=seeded())
    pairs = zip(LAYOUT.split(one).values(), LAYOUT.split(other).values(), strict=True)
    total = Similarity.total(similarity(*pair) for pair in pairs)
    x, y = (dense_update(LAYOUT, flat_P) / LAYOUT.scaling for flat_P in (one, other))
    assert total.cosine == pytest.approx(float(torch.nn.functional.cosine_similarity(x, y, dim=0)), rel=1e-5)
    assert total.difference == pytest.approx(float((x - y).norm()), rel=1e-5)


def test_the_same_factors_are_exactly_equal_and_another_gauge_is_the_same_update():
    b, a = factors(9, 7, rank=3)
    assert (similarity((b, a), (b, a)).cosine, similarity((b, a), (b, a)).difference) == (1.0, 0.0)
    gauge = torch.randn(3, 3, generator=seeded(7), dtype=torch.float64)
    moved = (b.double() @ gauge, torch.linalg.inv(gauge) @ a.double())
    assert similarity((b, a), moved).cosine == 1.0
    assert similarity((b, a), moved).difference < 1e-12 * similarity((b, a), moved).norm_x


def test_a_small_difference_is_not_lost_in_rounding():
    b, a = factors(9, 7, rank=2)
    b, a = b.double(), a.double()
    far = b.clone()
    far[0, 0] += 1e-10
    assert similarity((b, a), (far, a)).difference == pytest.approx(1e-10 * float(a[0].norm()), rel=1e-4)


def test_an_update_of_zero_has_no_cosine_even_where_its_factors_only_cancel():
    b, a = (x.double() for x in factors(9, 7, rank=2))
    cancelling = torch.cat([b, -b * 0.3], dim=1), torch.cat([a, a / 0.3])
    for nothing in ((torch.zeros(9, 4), torch.randn(4, 7)), cancelling):
        alike = similarity((b, a), nothing)
        assert (alike.cosine, alike.norm_y) == (None, 0.0)
        assert alike.difference == pytest.approx(alike.norm_x)


@pytest.mark.parametrize("leading", [(), (3,)])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_joined_adapters_make_both_updates(leading, rank):
    other = Layout((Site("head", 6, 8), Site("tail", 3, 2)), rank, alpha=5.0)
    one_TP, other_TP = torch.randn(*leading, LAYOUT.size), torch.randn(*leading, other.size)
    layout, flat_TP = joined(LAYOUT, one_TP, other, other_TP)
    assert (layout.sites, layout.rank) == ((*LAYOUT.sites, *other.sites), max(LAYOUT.rank, rank))
    made = {name: layout.scaling * b @ a for name, (b, a) in layout.split(flat_TP).items()}
    for part, numbers in ((LAYOUT, one_TP), (other, other_TP)):
        for name, (b, a) in part.split(numbers).items():
            assert torch.allclose(made[name], part.scaling * b @ a, atol=1e-5)


def test_joined_adapters_of_one_scaling_keep_their_numbers():
    other = Layout((Site("head", 6, 8),), rank=2, alpha=3.0)
    one_P, other_P = torch.randn(LAYOUT.size), torch.randn(other.size)
    layout, flat_P = joined(LAYOUT, one_P, other, other_P)
    assert layout == Layout((*LAYOUT.sites, *other.sites), 2, 3.0)
    assert torch.equal(flat_P, torch.cat([one_P, other_P]))


def test_an_update_that_alpha_turns_off_stays_off_when_joined():
    off, on = Layout(LAYOUT.sites, 2, alpha=0.0), Layout((Site("head", 6, 8),), 2, alpha=4.0)
    one_P, other_P = torch.randn(off.size), torch.randn(on.size)
    for first, second in (((off, one_P), (on, other_P)), ((on, other_P), (off, one_P))):
        layout, flat_P = joined(*first, *second)
        assert torch.isclose(layout.update_norm(flat_P), on.update_norm(other_P))


def test_adapters_of_a_common_site_cannot_be_joined():
    other = Layout((Site("k", 5, 11),), 2, 3.0)
    with pytest.raises(Mismatch, match="both adapters update k"):
        joined(LAYOUT, torch.zeros(LAYOUT.size), other, torch.zeros(other.size))
    elsewhere = Layout((Site("head", 5, 11),), 2, 3.0)
    with pytest.raises(Mismatch, match=r"adapters of shapes \(2, 96\) and \(3, 32\) cannot be joined"):
        joined(LAYOUT, torch.zeros(2, LAYOUT.size), elsewhere, torch.zeros(3, elsewhere.size))
