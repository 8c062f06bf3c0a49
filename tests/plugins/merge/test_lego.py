"""LoRA-LEGO against the slow, obvious definition, and its k-means against all partitions and scikit-learn."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from merge_rules import EXPERTS, LAYOUT, PRIOR, RULES, dense, generate
from random_factors import seeded

from sglora_cli.errors import UnknownName, UsageError
from sglora_merge.lego import assembled, kmeans


class Few:
    layout = LAYOUT

    def __init__(self, adapters_KP: torch.Tensor) -> None:
        self.adapters_KP = adapters_KP

    def means(self, rows=None):
        return self.adapters_KP if rows is None else self.adapters_KP[list(rows)]


def merged(adapters_KP: torch.Tensor, settings: str = "") -> torch.Tensor:
    rule = RULES["lego"].member(settings) if settings else RULES["lego"]
    return rule.restore(Few(adapters_KP), {}).generate(PRIOR, 1, 0, 1.0)[0]


def close(one_P: torch.Tensor, other_P: torch.Tensor) -> bool:
    """Whether the updates are the same."""
    pairs = zip(dense(one_P).values(), dense(other_P).values(), strict=True)
    return all(torch.allclose(one, other, atol=1e-5) for one, other in pairs)


def obvious(adapters_KP: torch.Tensor, norm: str) -> dict[str, torch.Tensor]:
    """Every way to put the units into two clusters is tried; the rest is one unit after the other."""
    updates = {}
    for name, (b_KOR, a_KRI) in LAYOUT.split(adapters_KP.double()).items():
        units = [(a_KRI[k, r], b_KOR[k, :, r]) for k in range(len(adapters_KP)) for r in range(LAYOUT.rank)]
        best, least = [], float("inf")
        for sides in product([0, 1], repeat=len(units)):
            clusters = [[u for u, side in zip(units, sides, strict=True) if side == n] for n in (0, 1)]
            if not all(clusters):
                continue
            error = 0.0
            for cluster in clusters:
                a, b = (sum(u[n] for u in cluster) / len(cluster) for n in (0, 1))
                error += sum(float((u[0] - a) @ (u[0] - a) + (u[1] - b) @ (u[1] - b)) for u in cluster)
            if error < least:
                best, least = clusters, error
        update = torch.zeros(b_KOR.shape[1], a_KRI.shape[2], dtype=torch.float64)
        for cluster in best:
            a, b = (sum(u[n] for u in cluster) / len(cluster) for n in (0, 1))
            if norm == "unit":
                wanted = sum(float(torch.cat(u).norm()) for u in cluster) / len(cluster)
                a, b = (x * wanted / float(torch.cat([a, b]).norm()) for x in (a, b))
            if norm == "factors":
                wanted_a, wanted_b = (sum(float(u[n].norm()) for u in cluster) / len(cluster) for n in (0, 1))
                a, b = a * wanted_a / float(a.norm()), b * wanted_b / float(b.norm())
            update += torch.outer(b, a)
        updates[name] = update
    return updates


@pytest.mark.parametrize("norm", ["unit", "factors", "none"])
def test_it_is_its_definition_unit_by_unit(norm):
    for adapters_KP in (EXPERTS.mean_EP, EXPERTS.mean_EP[:2]):
        found, expected = dense(merged(adapters_KP, f"norm={norm}")), obvious(adapters_KP, norm)
        for site, update in found.items():
            assert torch.allclose(update, expected[site], atol=1e-5)


def test_identical_experts_merge_to_themselves():
    for adapter_P in EXPERTS.mean_EP:
        assert close(merged(adapter_P.expand(5, -1)), adapter_P)


def test_the_order_of_units_and_experts_does_not_matter():
    swapped = EXPERTS.mean_EP.clone()
    swapped[1] = LAYOUT.join({n: (b.flip(-1), a.flip(-2)) for n, (b, a) in LAYOUT.split(swapped[1]).items()})
    assert not torch.equal(swapped, EXPERTS.mean_EP)
    assert close(swapped[1], EXPERTS.mean_EP[1])
    assert close(merged(swapped[[2, 0, 3, 1]]), merged(EXPERTS.mean_EP))


@pytest.mark.parametrize("norm", ["unit", "factors", "none"])
def test_as_many_clusters_as_units_make_the_sum_of_all_updates(norm):
    for b_KOR, a_KRI in LAYOUT.split(EXPERTS.mean_EP).values():
        b_OF, a_FI = assembled(b_KOR, a_KRI, 8, norm)
        assert b_OF.shape[1] == 8
        assert torch.allclose(b_OF @ a_FI, (b_KOR @ a_KRI).double().sum(dim=0) * (2 / 8) ** 0.5, atol=1e-5)
    assert close(merged(EXPERTS.mean_EP, "clusters=8"), merged(EXPERTS.mean_EP, "clusters=100"))


def test_experts_of_one_start_keep_the_norm_that_their_mean_loses():
    """One A, and B of their own: the clusters are the rows of A."""
    rng, start_P = seeded(), LAYOUT.initial(0)
    in_b = LAYOUT.b_mask()
    adapters_KP = 100 * start_P + in_b * torch.randn(4, LAYOUT.size, generator=rng)
    assert close(merged(adapters_KP, "norm=none"), adapters_KP.mean(dim=0))
    mean_P = adapters_KP.mean(dim=0)
    for name, (b_OR, a_RI) in LAYOUT.split(mean_P).items():
        b_KOR = LAYOUT.split(adapters_KP)[name][0]
        longer = b_OR * b_KOR.norm(dim=1).mean(dim=0) / b_OR.norm(dim=0)
        assert torch.allclose(dense(merged(adapters_KP, "norm=factors"))[name], (longer @ a_RI).double(), atol=1e-3)


def test_the_top_k_are_those_of_the_sentence():
    assert close(generate("lego:experts=top")[0], merged(EXPERTS.mean_EP[list(PRIOR.rows)]))
    assert not close(generate("lego:experts=top")[0], generate("lego")[0])
    assert torch.equal(generate("lego", 2, seed=1), generate("lego", 2, seed=2))


def test_experts_without_an_update_merge_to_none():
    assert not bool(torch.cat([x.flatten() for x in dense(merged(torch.zeros(3, LAYOUT.size))).values()]).any())


def test_unknown_settings_are_refused():
    with pytest.raises(UnknownName, match="no setting of lego named 'density'"):
        RULES["lego"].member("density=0.5")
    with pytest.raises(UsageError, match="lego: norm must be one of unit, factors, none, got 'both'"):
        RULES["lego"].member("norm=both")


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [1, 3, 5])
def test_kmeans_finds_what_scikit_learn_finds(clusters):
    cluster = pytest.importorskip("sklearn.cluster")
    rng = seeded()
    row_NW = torch.randn(5, 4, generator=rng).repeat(8, 1).double() * 2 + torch.randn(40, 4, generator=rng).double()
    theirs = cluster.KMeans(clusters, n_init=20, random_state=0).fit(row_NW.numpy()).inertia_
    found_N = kmeans(row_NW, clusters)
    members = [row_NW[found_N == n] for n in range(clusters)]
    assert sum(float((m - m.mean(dim=0)).square().sum()) for m in members) <= theirs * 1.001


def test_rows_that_are_equal_share_a_cluster():
    row_NW = torch.eye(3).double()[[0, 2, 2, 0, 1, 0]]
    found = kmeans(row_NW, 5).tolist()
    assert sorted(set(found)) == [0, 1, 2]
    assert found[0] == found[3] == found[5] != found[1] == found[2]
