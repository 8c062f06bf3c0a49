"""Paths against closed forms: normal data, whose best guesses and marginals are known, and Ho et al.'s own loop."""

from __future__ import annotations

import pytest
import torch

from sglora_flow.config import CondPDiffConfig, FlowConfig, PDiffConfig
from sglora_flow.paths import Diffusion, FlowMatching, path_of

PATHS = {"flow": FlowMatching(1e-4), "ddpm": Diffusion(1000, 1e-4, 0.02, 1.0), "ddim": Diffusion(1000, 1e-4, 0.02, 0.0)}
VARIANCE = torch.tensor([4.0, 1.0, 0.01, 0.0])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("time", [0.0, 0.3, 0.7, 0.95])
def test_the_normal_guess_is_that_of_least_squares(name, time):
    path, count = PATHS[name], 100_000
    x, noise = VARIANCE.sqrt() * torch.randn(count, 4, generator=rng()), torch.randn(count, 4, generator=rng(1))
    point, way = path.at(torch.full((count,), time), x, noise)
    slope = (point * way).mean(0) / point.square().mean(0)
    guess = path.normal(torch.full((1, 1), time), torch.ones(1, 4), VARIANCE)[0]
    assert torch.allclose(guess, slope, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("name", PATHS)
def test_followed_by_the_best_guesses_noise_becomes_the_data(name):
    path, mean = PATHS[name], torch.tensor([1.0, -2.0, 0.5, 3.0])
    kept = 1.0 if name == "flow" else 0.0

    def field(point, time):
        one = torch.full((1, 1), time)
        share = path.at(one[0], torch.ones(1, 1), torch.zeros(1, 1))[0]  # of x in a point
        return kept * mean + path.normal(one, point - share * mean, VARIANCE)

    drawn = path.follow(field, torch.randn(20_000, 4, generator=rng()), 100, 1.0, rng(1))
    assert torch.allclose(drawn.mean(0), mean, atol=0.05)
    assert torch.allclose(drawn.std(0), VARIANCE.sqrt(), rtol=0.04, atol=0.02)
    # At temperature 0 nothing is random, and one arrives at the mean.
    cold = path.follow(field, torch.randn(3, 4, generator=rng()), 100, 0.0, rng(1))
    assert torch.equal(cold[0], cold[2])
    assert torch.allclose(cold[0], mean, atol=0.02)


def test_all_steps_with_fresh_noise_are_ho_et_al_s_algorithm():
    path, noise = Diffusion(7, 0.05, 0.4, 1.0), torch.randn(5, 3, generator=rng())

    def field(point, time):
        return torch.tanh(point) * (1 + time)

    beta = torch.linspace(0.05, 0.4, 7, dtype=torch.float64)
    kept = (1 - beta).cumprod(0)
    x, dice = noise.clone(), rng(3)
    for t in reversed(range(7)):
        x = (x - beta[t] / (1 - kept[t]).sqrt() * field(x, t / 6)) / (1 - beta[t]).sqrt()
        if t:
            variance = beta[t] * (1 - kept[t - 1]) / (1 - kept[t])
            x = x + variance.sqrt() * torch.randn(5, 3, generator=dice)
    assert torch.allclose(path.follow(field, noise, 7, 1.0, rng(3)), x.float(), atol=1e-4)


def test_a_flow_leads_from_noise_to_data_in_a_straight_line():
    path, x, noise = FlowMatching(0.1), torch.full((1, 1), 5.0), torch.full((1, 1), 2.0)
    (start, way), (end, _) = (path.at(torch.tensor([t]), x, noise) for t in (0.0, 1.0))
    assert float(start) == 2.0
    assert float(end) == pytest.approx(5.0 + 0.1 * 2.0)  # sigma_min of the noise is left
    assert float(start + way) == pytest.approx(float(end))


def test_the_objective_says_which_path():
    assert path_of(FlowConfig()) == FlowMatching(1e-4)
    assert path_of(PDiffConfig()) == path_of(CondPDiffConfig()) == Diffusion(1000, 1e-4, 0.02, 1.0)
