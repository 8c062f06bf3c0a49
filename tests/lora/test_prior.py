"""Eq. 6-8 against sampling and hand-worked cases."""

from __future__ import annotations

import pytest
import torch

from sglora_cli.errors import Mismatch
from sglora_cli.lora.prior import moments, prior, select


class Experts:
    names = ("a", "b", "c")
    layout = None

    def __init__(self):
        dice = torch.Generator().manual_seed(1)
        self.mu, self.var = torch.randn(3, 5, generator=dice), torch.rand(3, 5, generator=dice)
        self.read: set[int] = set()

    def means(self, rows=None):
        self.read.update(rows)
        return self.mu[list(rows)]

    def variances(self, rows=None):
        return self.var[list(rows)]


def test_moments_are_those_of_the_mixture():
    dice = torch.Generator().manual_seed(0)
    alpha = torch.tensor([0.7, 0.2, 0.1])
    experts = Experts()
    mean, variance, within = moments(alpha, experts.mu, experts.var)
    which = torch.multinomial(alpha, 400_000, replacement=True, generator=dice)
    drawn = experts.mu[which] + experts.var[which].sqrt() * torch.randn(400_000, 5, generator=dice)
    assert torch.allclose(mean, drawn.mean(dim=0), atol=0.01)
    assert torch.allclose(variance, drawn.var(dim=0), atol=0.02)
    assert bool((within <= variance).all())


def test_only_the_selected_experts_are_read():
    experts = Experts()
    found = prior(torch.tensor([0.6, 0.8]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), experts, 2, 0.1)
    assert found.rows == (1, 0)
    assert experts.read == {0, 1}
    assert found.alpha_K.tolist() == pytest.approx(torch.softmax(torch.tensor([8.0, 6.0]), 0).tolist())
    assert torch.allclose(found.mean_P, (found.alpha_K[:, None] * experts.mu[[1, 0]]).sum(0))


def test_an_expert_left_out_is_not_selected():
    index = torch.eye(3)
    found = prior(index[0], index, Experts(), 2, 0.1, without=[0])
    assert 0 not in found.rows


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(Mismatch, match=f"K must be between 1 and the number of experts, 3, got {k}"):
        select(torch.zeros(3), k, 0.1)


def test_a_sentence_that_is_not_finite_is_refused():
    with pytest.raises(Mismatch, match="not finite"):
        prior(torch.tensor([float("nan"), 0.0]), torch.zeros(3, 2), Experts(), 2, 0.1)
