"""Eq. 6-8 against sampling and hand-worked cases."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from sglora_cli.config import SPACES
from sglora_cli.errors import Mismatch, UsageError
from sglora_cli.lora.prior import Index, Query, best_of, cosines, log_density, moments, prior, prior_without, select


class Experts:
    names = ("a", "b", "c")
    layout = None

    def __init__(self):
        rng = torch.Generator().manual_seed(1)
        self.mu, self.var = torch.randn(3, 5, generator=rng), torch.rand(3, 5, generator=rng)
        self.read: set[int] = set()

    def means(self, rows=None):
        self.read.update(rows)
        return self.mu[list(rows)]

    def variances(self, rows=None):
        return self.var[list(rows)]


def test_moments_are_those_of_the_mixture():
    rng = torch.Generator().manual_seed(0)
    alpha = torch.tensor([0.7, 0.2, 0.1])
    experts = Experts()
    mean, variance, within = moments(alpha, experts.mu, experts.var)
    which = torch.multinomial(alpha, 400_000, replacement=True, generator=rng)
    drawn = experts.mu[which] + experts.var[which].sqrt() * torch.randn(400_000, 5, generator=rng)
    assert torch.allclose(mean, drawn.mean(dim=0), atol=0.01)
    assert torch.allclose(variance, drawn.var(dim=0), atol=0.02)
    assert bool((within <= variance).all())


def test_only_the_selected_experts_are_read():
    experts = Experts()
    selected = prior(torch.tensor([0.6, 0.8]), torch.tensor([0.6, 0.8, -0.6]), experts, 2, 0.1)
    assert selected.rows == (1, 0)
    assert experts.read == {0, 1}
    assert selected.alpha_K.tolist() == pytest.approx(torch.softmax(torch.tensor([8.0, 6.0]), 0).tolist())
    assert torch.allclose(selected.mean_P, (selected.alpha_K[:, None] * experts.mu[[1, 0]]).sum(0))


def test_an_expert_left_out_is_not_selected():
    own = torch.eye(3)[0]
    selected = prior(own, own, Experts(), 2, 0.1, without=[0])
    assert 0 not in selected.rows


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(Mismatch, match=f"K must be between 1 and the number of experts, 3, got {k}"):
        select(torch.zeros(3), k, 0.1)


def test_a_sentence_that_is_not_finite_is_refused():
    with pytest.raises(Mismatch, match="not finite"):
        cosines(torch.tensor([float("nan"), 0.0]), torch.zeros(3, 2), 1)


def test_every_space_compares_what_it_says():
    rng = torch.Generator().manual_seed(2)
    unit = [row / row.norm() for row in torch.randn(8, 4, generator=rng)]
    query, index = (
        Query(unit[0], unit[1]),
        Index(SimpleNamespace(index_ED=torch.stack(unit[2:5]), meaning_EW=torch.stack(unit[5:]))),
    )
    mean = [sum(float(row[d]) for row in unit[2:5]) / 3 for d in range(4)]

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    def off(row):
        return [float(x) - m for x, m in zip(row, mean, strict=True)]

    by_hand = {
        "embedding": [cosine(unit[0].tolist(), e.tolist()) for e in unit[2:5]],
        "centred": [cosine(off(unit[0]), off(e)) for e in unit[2:5]],
        "meaning": [cosine(unit[1].tolist(), e.tolist()) for e in unit[5:]],
    }
    assert set(by_hand) == set(SPACES)
    for space, expected in by_hand.items():
        assert index.similarity(query, space, 2).tolist() == pytest.approx(expected, abs=1e-6), space


def test_the_only_expert_is_the_mean_and_still_selected():
    index = Index(SimpleNamespace(index_ED=torch.eye(2)[:1]))
    assert index.similarity(Query(torch.eye(2)[1], torch.eye(2)[1]), "centred", 1).tolist() == [0.0]


def test_log_density_is_that_of_the_normal_distribution_and_the_likeliest_are_best():
    own = torch.eye(3)[0]
    mixture = prior(own, own, Experts(), 2, 0.1)
    variance = mixture.variance_P.double().clamp_min(1e-3 * float(mixture.variance_P.double().mean()))
    x = torch.randn(5, len(variance), generator=torch.Generator().manual_seed(0)).double()
    normal = torch.distributions.Normal(mixture.mean_P.double(), variance.sqrt())
    nats = normal.log_prob(x).mean(dim=1) - normal.log_prob(mixture.mean_P.double()).mean()
    assert torch.allclose(log_density(mixture, x.float()), nats, rtol=1e-4)
    assert best_of(mixture, x.float(), 3) == tuple(nats.argsort(descending=True)[:3].tolist())


def test_a_number_that_hardly_varies_does_not_decide():
    mixture = replace(
        prior(torch.eye(3)[0], torch.eye(3)[0], Experts(), 2, 0.1), variance_P=torch.tensor([1.0, 0, 0, 0, 0])
    )
    x = mixture.mean_P + torch.tensor([[1.0, 0, 0, 0, 0], [0.0, 0.1, 0, 0, 0]])
    floor = 1e-3 * 0.2  # a thousandth of the mean variance
    assert log_density(mixture, x).tolist() == pytest.approx([-1 / 5 / 2, -0.01 / floor / 5 / 2], rel=1e-4)


def test_more_samples_than_there_are_cannot_be_kept():
    mixture = prior(torch.eye(3)[0], torch.eye(3)[0], Experts(), 2, 0.1)
    with pytest.raises(UsageError, match="the best 3 of 2 samples"):
        best_of(mixture, torch.zeros(2, 5), 3)


def test_the_experts_chosen_are_those_of_double_precision_and_ties_go_to_the_lower_row():
    rng = torch.Generator().manual_seed(0)
    index_ED = torch.nn.functional.normalize(torch.randn(3000, 64, generator=rng), dim=1)
    index_ED[500:2500] = index_ED[500]  # 2,000 experts with one sentence
    index_ED[2600:2610] = torch.nn.functional.normalize(
        index_ED[500] + 1e-7 * torch.randn(10, 64, generator=rng), dim=1
    )
    for embedding_D in (index_ED[500], index_ED[7], index_ED[2605], -index_ED[3]):
        exact_E = (index_ED.double() @ embedding_D.double()).float()
        for k, without in ((1, 0), (4, 3), (40, 0)):
            allowed_E = exact_E.clone()
            allowed_E[:without] = -2
            rows, _ = select(allowed_E, k, 0.05)
            found = cosines(embedding_D, index_ED, k + without)
            allowed_E = found.clone()
            allowed_E[:without] = -2
            assert select(allowed_E, k, 0.05)[0] == rows
            assert torch.equal(found[list(rows)], exact_E[list(rows)])
            assert torch.allclose(found, exact_E, atol=1e-6)


def test_a_prior_without_an_expert_is_that_of_the_others():
    own = torch.eye(3)[0]
    known = prior(own, torch.tensor([0.9, 0.7, 0.8]), Experts(), 2, 0.1)
    assert known.rows == (0, 2)
    others = prior_without(known, Experts(), 2)
    assert others.rows == (0, 1)
    assert others.alpha_K.tolist() == pytest.approx(torch.softmax(torch.tensor([9.0, 7.0]), 0).tolist())
    assert others.tau == known.tau == 0.1
    assert prior_without(prior(own, known.similarity_E, Experts(), 3, 0.1), Experts(), 0).rows == (2, 1)
    with pytest.raises(Mismatch, match="unknown temperature"):
        prior_without(replace(known, tau=math.nan), Experts(), 0)
