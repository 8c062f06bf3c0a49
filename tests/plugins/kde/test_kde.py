"""Kernel densities over adapters: moments against those of the states, weights against Eq. 6, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from worlds import EXPERTS, STATES, TASKS, World

from sglora_cli.errors import BadFile
from sglora_cli.lora.prior import select
from sglora_cli.plugin.testing.toys import LAYOUT
from sglora_kde import sglora_generators

KDE, NEAR = sglora_generators()
WORLD = World()
STATES_NP = WORLD.states_TMP.flatten(0, 1)


@pytest.mark.parametrize("bandwidth", [0.0, 1.0, 3.0])
def test_draws_have_the_mean_and_the_variances_of_the_states(bandwidth):
    kde, _ = KDE.fit(WORLD.material(), {"bandwidth": bandwidth})
    made = kde.generate(WORLD.prior(0), 4000, 0, 1.0)
    own, states = kde.scaling.inward(made), kde.scaling.inward(STATES_NP)
    largest = float(states.std(0).max())
    assert torch.allclose(own.mean(0), states.mean(0), atol=0.06 * largest)
    assert torch.allclose(own.std(0), states.std(0), rtol=0.06)
    assert float((torch.cov(made.T) - torch.cov(STATES_NP.T)).norm()) < 0.25 * float(torch.cov(STATES_NP.T).norm())


def test_each_coordinate_is_one_of_a_states_where_kernels_have_no_width():
    kde, _ = KDE.fit(WORLD.material(), {"bandwidth": 0.0, "projection": 5})
    made, states = (kde.scaling.inward(rows) for rows in (kde.generate(WORLD.prior(0), 50, 0, 1.0), STATES_NP))
    apart_SNR = (made[:, None] - states).abs()
    assert float(apart_SNR.min(dim=1).values.max()) < 0.01
    assert int((apart_SNR.max(dim=2).values.min(dim=1).values < 0.01).sum()) < 5  # but seldom all of the same state
    near, _ = NEAR.fit(WORLD.material(), {"bandwidth": 0.0, "projection": 5})
    made = near.scaling.inward(near.generate(WORLD.prior(0), 50, 0, 1.0))
    assert float((made[:, None] - states).abs().max(dim=2).values.min(dim=1).values.max()) < 0.01


def test_tasks_are_weighted_as_experts_are():
    near, _ = NEAR.fit(WORLD.material(), {"tau": 0.1})
    prior = WORLD.prior(EXPERTS + TASKS)
    rows, alpha = select(WORLD.sentence_TD[EXPERTS : EXPERTS + TASKS] @ prior.embedding_D, TASKS, 0.1)
    weight_TM = near.weights(prior).view(TASKS, STATES)
    assert torch.allclose(weight_TM[list(rows)].sum(dim=1), alpha, atol=1e-6)
    mean_P = (weight_TM[:, :, None] * WORLD.states_TMP).sum(dim=(0, 1))
    assert torch.allclose(near.generate(prior, 1, 0, 0.0)[0], mean_P, atol=0.02)


def test_the_sentence_tells_it_more_than_the_experts_do():
    near, _ = NEAR.fit(WORLD.material(), {})
    kde, _ = KDE.fit(WORLD.material(), {})
    error = {one: WORLD.error(lambda prior, one=one: one.generate(prior, 1, 0, 0.0)[0]) for one in (near, kde)}
    mean = WORLD.error(lambda prior: STATES_NP.mean(0))
    assert error[near] < 0.5 * min(mean, WORLD.error(lambda prior: prior.mean_P))
    assert error[kde] == pytest.approx(mean, rel=0.01)


def test_the_best_share_is_of_each_task():
    def recall(t, adapters_SP):
        return adapters_SP[:, 0]

    kde, facts = KDE.fit(WORLD.material(recall=recall), {"best": 0.34})
    best = WORLD.states_TMP.gather(1, WORLD.states_TMP[:, :, :1].topk(2, dim=1).indices.expand(-1, -1, LAYOUT.size))
    assert facts["trained_on"] == {"tasks": TASKS, "states": 2}
    assert torch.allclose(kde.scaling.outward(kde.state_NR), best.flatten(0, 1), atol=0.02)


def test_recall_is_not_asked_for_all_states():
    def recall(t, adapters_SP):
        raise AssertionError

    KDE.fit(WORLD.material(recall=recall), {})


@pytest.mark.parametrize(
    "damage",
    [
        {"states": None},
        {"states": torch.full((240, 66), torch.nan)},
        {"states": torch.zeros(7, 66)},
        {"states": torch.zeros(240, 3)},
        {"sentences": torch.zeros(0, 8)},
        {"kernels": torch.tensor([1.0])},
        {"kernels": torch.tensor([-1.0, 0.0])},
        {"basis": torch.zeros(4, 5)},
    ],
    ids=lambda damage: f"{next(iter(damage))}",
)
def test_tensors_that_do_not_fit_are_refused(damage):
    kde, _ = KDE.fit(WORLD.material(), {})
    tensors = {k: v for k, v in {**kde.tensors(), **damage}.items() if v is not None}
    with pytest.raises(BadFile, match="not a kernel density of this pack"):
        KDE.restore(WORLD, tensors)


def test_one_state_is_drawn_as_it_is():
    world = World()
    made = replace(world.material(), tasks=["world/8"], states_of_task=1, priors=[world.prior(EXPERTS)])
    kde, _ = KDE.fit(made, {})
    assert torch.allclose(kde.generate(world.prior(0), 2, 0, 1.0), world.states_TMP[0, :1], atol=0.02)


@pytest.mark.parametrize("kde", [KDE, NEAR], ids=lambda one: one.name)
def test_what_it_will_need_is_its_states(kde):
    cost = kde.cost(LAYOUT, TASKS, STATES, {"projection": 9})
    stored = kde.fit(WORLD.material(), {"projection": 9})[0].tensors()
    known = sum(x.numel() * x.element_size() for name, x in stored.items() if name != "sentences")
    assert known < cost["stored_bytes"] < known + 4 * TASKS * 8
    assert cost["seconds"] > 0
