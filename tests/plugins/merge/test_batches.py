"""Rules that are no weighted sums, in batches of sites, against one site after the other."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy
import pytest
import torch
from merge_rules import EXPERTS, PRIOR, RULES, at_one_site
from obvious_merge import obvious_merge
from random_factors import seeded

from sglora_cli.lora.layout import Layout, Site
from sglora_merge import arithmetic, spaces
from sglora_merge.merging import merge
from sglora_merge.rule import Rule

MIXED = Layout(
    (Site("q", 9, 7), Site("k", 5, 11), Site("v", 9, 7), Site("o", 9, 7), Site("up", 3, 2), Site("k2", 5, 11)), 2, 3.0
)
"""Sites of one shape are not behind each other, and one has a side of the rank."""
LARGE = Layout(
    (Site("q", 300, 300), Site("visual_projection", 260, 300), Site("k", 300, 300), Site("down", 300, 64)), 2, 2
)
WEIGHTS = torch.tensor([1.0, 0.3, 2.0, 0.0])
SPACES, CONVENTIONS = ("factors", "updates", "aligned"), ("peft", "mergekit")
KINDS = {
    "ties": {"prune": "magnitude", "density": 0.3, "elect": "total"},
    "ties by frequency": {"prune": "magnitude", "density": 0.6, "elect": "frequency"},
    "elected": {"elect": "total"},
    "trimmed": {"prune": "magnitude", "density": 0.3},
    "dare": {"prune": "random", "density": 0.6},
    "dare-ties": {"prune": "random", "density": 0.6, "elect": "total"},
    "nothing stays": {"prune": "random", "density": 0.0, "elect": "total"},
}
RULES_OF_ALL_KINDS = [
    pytest.param(Rule(space=space, convention=convention, **KINDS[kind]), id=f"{kind} {space} {convention}")
    for kind, space, convention in product(KINDS, SPACES, CONVENTIONS)
    # As many signs for as against count as positive, and a singular vector may point either way.
    if (kind, space) != ("ties by frequency", "aligned")
]


class Of:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout


def adapters(layout: Layout, count: int = 4) -> torch.Tensor:
    return torch.randn(count, layout.size, generator=seeded(11))


def distance(layout: Layout, one_P: torch.Tensor, other_P: torch.Tensor) -> float:
    """The largest of all sites between two adapters' updates, relative to the larger one."""
    farthest = 0.0
    for (b, a), (d, c) in zip(layout.split(one_P).values(), layout.split(other_P).values(), strict=True):
        one, other = b.double() @ a.double(), d.double() @ c.double()
        farthest = max(farthest, float((one - other).norm() / max(one.norm(), other.norm(), torch.tensor(1e-30))))
    return farthest


@pytest.mark.parametrize("weights", [WEIGHTS, torch.ones(4)], ids=["weighted", "summed"])
@pytest.mark.parametrize("rule", RULES_OF_ALL_KINDS)
def test_all_sites_together_are_as_one_after_the_other(rule, weights):
    adapters_KP = adapters(MIXED)
    expected_P = obvious_merge(rule, MIXED, weights, adapters_KP, seed=5)
    assert distance(MIXED, merge(rule, Of(MIXED), weights, adapters_KP, seeded(5)), expected_P) <= 1e-6


@pytest.mark.parametrize("rule", RULES_OF_ALL_KINDS)
def test_the_size_of_batches_changes_nothing(rule, monkeypatch):
    adapters_KP = adapters(MIXED)
    together_P = merge(rule, Of(MIXED), WEIGHTS, adapters_KP, seeded(5))
    monkeypatch.setattr(spaces, "AT_ONCE", {"cpu": 1})
    monkeypatch.setattr(arithmetic, "_BLOCK", {"cpu": 1})
    assert distance(MIXED, merge(rule, Of(MIXED), WEIGHTS, adapters_KP, seeded(5)), together_P) <= 1e-6


@pytest.mark.parametrize(
    "rule",
    [
        *(Rule(weights="sum", space=space, **KINDS["ties"]) for space in SPACES),
        Rule(weights="sum", space="updates", convention="mergekit", **KINDS["dare-ties"]),
        Rule(weights="sum", space="updates", **KINDS["dare"]),
    ],
    ids=lambda rule: f"{rule.space} {rule.prune} {rule.elect}",
)
def test_large_sites_are_as_their_dense_svds(rule):
    adapters_KP = adapters(LARGE)
    expected_P = obvious_merge(rule, LARGE, torch.ones(4), adapters_KP, seed=5)
    assert distance(LARGE, merge(rule, Of(LARGE), torch.ones(4), adapters_KP, seeded(5)), expected_P) <= 1e-6


@pytest.mark.parametrize("rule", RULES_OF_ALL_KINDS)
def test_experts_whose_updates_are_zero_merge_to_zero(rule):
    zero_KP = adapters(MIXED) * ~MIXED.b_mask()
    assert distance(MIXED, merge(rule, Of(MIXED), torch.ones(4), zero_KP, seeded(5)), torch.zeros(MIXED.size)) == 0


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_sites_with_fewer_live_directions_are_merged_by_their_own(convention):
    """How many numbers a trim keeps depends on them: at k there is one, at o none."""
    parts = {name: (b.clone(), a.clone()) for name, (b, a) in MIXED.split(adapters(MIXED)).items()}
    b_KOR, a_KRI = parts["k"]
    parts["k"] = b_KOR[:1, :, :1].expand_as(b_KOR), a_KRI[:1, :1].expand_as(a_KRI)
    parts["o"] = torch.zeros_like(parts["o"][0]), parts["o"][1]
    adapters_KP = MIXED.join(parts)
    for kind in ("ties", "dare-ties"):
        rule = Rule(space="aligned", convention=convention, **KINDS[kind])
        merged_P = merge(rule, Of(MIXED), torch.ones(4), adapters_KP, seeded(5))
        found = MIXED.split(merged_P)
        assert not found["o"][0].any()
        some = Layout(tuple(site for site in MIXED.sites if site.name != "o"), 2, 3.0)  # the definition asks for one
        own_KP, found_P = (some.join({site.name: f[site.name] for site in some.sites}) for f in (parts, found))
        assert distance(some, found_P, obvious_merge(rule, some, torch.ones(4), own_KP, seed=5)) <= 1e-6


@pytest.mark.parametrize("name", ["ties", "dare-ties", "knots", "task-arithmetic", "model-soups"])
def test_without_experts_there_is_no_update(name):
    fitted = RULES[name].member("experts=none").restore(EXPERTS, {})
    assert not fitted.generate(PRIOR, 2, 0, 1.0).any()


@pytest.mark.parametrize("density", [0.0, 0.05, 1 / 3, 0.5, 0.9, 1 - 1e-7])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (40, 50)])
def test_what_is_dropped_is_what_bernoulli_draws(density, shape):
    """Masks follow from the seed, so adapters that were saved can be made again."""
    rng, ones = seeded(3), torch.ones(4, *shape)
    expected = torch.stack([torch.bernoulli(torch.full(shape, density), generator=rng) for _ in range(4)])
    found = at_one_site(Rule(prune="random", density=density), torch.tensor([1.0, 0, 0, 0]), ones.clone(), seeded(3))
    assert torch.equal(found.bool(), expected[0].bool())
    rule = Rule(prune="random", density=density, convention="mergekit")
    found = at_one_site(rule, torch.tensor([0, 0, 0, 1.0]), ones.clone(), seeded(3))
    assert torch.equal(found.bool(), expected[3].bool())


NUMBERS = {
    "noise": numpy.abs(numpy.random.default_rng(0).standard_normal(50_000)),
    "few values": numpy.random.default_rng(1).integers(0, 4, 50_000),
    "zeros": numpy.zeros(5_000),
    "sorted": numpy.arange(30_000),
    "a sample sees none of the large ones": (numpy.arange(30_000) % 21 == 5) * numpy.arange(30_000),
    "huge": numpy.exp(numpy.linspace(-80, 80, 9_000)),
    "no numbers": numpy.full(5_000, numpy.nan),
    "one": numpy.ones(1),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.999, 1.0])
def test_the_border_of_a_trim_is_that_of_sorted_numbers(name, share):
    size_N = NUMBERS[name].astype(numpy.float32)
    count = max(1, int(share * len(size_N)))
    expected = numpy.sort(size_N)[len(size_N) - count]
    assert numpy.array_equal(arithmetic._border(size_N, count), expected, equal_nan=True)
    found_T = arithmetic._borders(torch.from_numpy(numpy.stack([size_N, size_N / 2])), count)
    assert numpy.array_equal(found_T.numpy(), numpy.array([expected, expected / 2]), equal_nan=True)


def test_of_many_equal_numbers_no_more_stay_than_the_density_says():
    x_KS = torch.randint(-3, 4, (2, 3, 90, 100), generator=seeded()).float()
    rule = Rule(prune="magnitude", density=0.4)
    for k in range(2):
        for s in range(3):
            kept = at_one_site(rule, torch.ones(1), x_KS[k : k + 1, s], seeded())
            size_N = x_KS[k, s].abs().flatten()
            first = size_N.sort(descending=True, stable=True).indices[:3600]
            expected_N = torch.zeros(9000).index_copy(0, first, x_KS[k, s].flatten()[first])
            assert torch.equal(kept.flatten(), expected_N)


def test_a_rule_moves_to_a_device_that_has_float64():
    fitted = RULES["dare-ties"].restore(EXPERTS, {})
    expected_SP = fitted.generate(PRIOR, 2, 1, 1.0)
    moved = fitted.on_device(torch.device("cpu"))
    assert torch.equal(moved.generate(PRIOR, 2, 1, 1.0), expected_SP)
    assert fitted.on_device(torch.device("cuda", 1)).device == torch.device("cuda", 1)
    assert fitted.on_device(torch.device("mps")).device == torch.device("cpu")


def test_weighted_sums_stay_on_the_cpu():
    """They are a product of a few numbers, for which nothing is worth moving; no device of this name is here."""
    for name in ("model-soups", "task-arithmetic", "zero-shot", "knots:elect=none/prune=none"):
        base, _, settings = name.partition(":")
        fitted = (RULES[base].member(settings) if settings else RULES[base]).restore(EXPERTS, {})
        expected_SP = fitted.generate(PRIOR, 2, 1, 1.0)
        assert torch.equal(replace(fitted, device=torch.device("meta")).generate(PRIOR, 2, 1, 1.0), expected_SP)
