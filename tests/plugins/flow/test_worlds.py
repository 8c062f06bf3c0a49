"""A world where adapters follow from sentences: what reads them wins, and what does not has the states' shape."""

from __future__ import annotations

import pytest
import torch
from worlds import World

from sglora_flow import sglora_generators

FLOWS = {one.name: one for one in sglora_generators()}
WORLD = World()
TOP_K = WORLD.error(lambda prior: prior.mean_P)
MEAN = WORLD.error(lambda prior: WORLD.states_TMP.mean(dim=(0, 1)))


def fitted(name, **settings):
    return FLOWS[name].fit(WORLD.material(), {"epochs": 100, **settings})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"), [("flow", {"condition": "embedding"}), ("cond-p-diff", {}), ("d2nwg", {})]
)
def test_told_the_sentence_it_finds_unseen_adapters(name, settings):
    flow, facts = fitted(name, **settings)
    drawn = WORLD.error(lambda prior: flow.generate(prior, 1, 0, 1.0)[0])
    assert drawn < 0.1 * min(TOP_K, MEAN)
    assert WORLD.error(lambda prior: flow.generate(prior, 1, 0, 0.0)[0]) < 0.1 * min(TOP_K, MEAN)
    assert facts["loss"] < 0.2 * facts["loss_of_constant"]


@pytest.mark.slow
def test_without_the_sentence_its_draws_are_like_the_states():
    flow, _ = fitted("p-diff", width=64, steps=50)
    made, states = flow.generate(WORLD.prior(0), 1000, 0, 1.0), WORLD.states_TMP.flatten(0, 1)
    assert float((made.mean(0) - states.mean(0)).norm()) < 0.1 * float(states.mean(0).norm())
    assert float((torch.cov(made.T) - torch.cov(states.T)).norm()) < 0.3 * float(torch.cov(states.T).norm())
    assert WORLD.error(lambda prior: flow.generate(prior, 1, 0, 1.0)[0]) > MEAN
