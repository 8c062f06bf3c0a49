"""The states of a material in a network's numbers, against all of them at once."""

from __future__ import annotations

import pytest
import torch

from sglora_cli.lora.coordinates import Scaling
from sglora_cli.plugin.states import state_blocks, state_coordinates, state_projection
from sglora_cli.plugin.testing.toys import ToyExperts, material


def everything() -> torch.Tensor:
    made = material(ToyExperts())
    return torch.stack([made.states(t) for t in range(len(made.tasks))])


def test_every_state_comes_once_task_by_task():
    made, whole = material(ToyExperts()), Scaling.of(ToyExperts())
    assert torch.equal(torch.cat(list(state_blocks(made, whole))), whole.inward(everything()).flatten(0, 1))


def test_the_span_has_the_experts_and_all_states():
    made, whole = material(ToyExperts()), Scaling.of(ToyExperts())
    scaling, kept = state_projection(made, whole, 6, 1.0)
    rows = torch.cat([whole.inward(made.experts.means()) * 5**0.5, whole.inward(everything()).flatten(0, 1)])
    best = torch.linalg.svd(rows)[2][:6]
    assert kept == pytest.approx(float((rows @ best.T).square().sum() / rows.square().sum()), rel=1e-4)
    coordinates = scaling.coordinates(torch.cat([whole.inward(made.experts.means()).repeat_interleave(5, 0), rows[4:]]))
    assert float(coordinates.square().mean()) == pytest.approx(1.0, rel=1e-2)


def test_spread_and_dropped_are_those_of_all_numbers():
    made, whole = material(ToyExperts()), Scaling.of(ToyExperts())
    scaling, _ = state_projection(made, whole, 4, 1.0)
    known_NR, spread, dropped = state_coordinates(made, scaling)
    numbers = whole.inward(everything()).flatten(0, 1)
    assert torch.allclose(known_NR, scaling.coordinates(numbers), atol=1e-6)
    assert spread == pytest.approx(float((numbers - numbers.mean(0)).square().mean()), rel=1e-5)
    back = scaling.whole.inward(scaling.outward(known_NR))
    assert dropped == pytest.approx(float((numbers - back).square().mean()), rel=1e-3)
