"""Tests of the generator `example`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sglora_cli.testing import GENERATOR_CHECKS, GeneratorTrial

from sglora_example import Example


@pytest.mark.parametrize("check", GENERATOR_CHECKS, ids=lambda check: check.__name__)
def test_it_passes_the_conformance_kit(check: Callable[..., None]) -> None:
    check(GeneratorTrial(Example()))


def test_it_is_the_mean_of_the_two_nearest_experts() -> None:
    trial = GeneratorTrial(Example())
    first, second = trial.experts.prior(7).similarity_E.argsort(descending=True)[:2].tolist()
    wanted_P = (trial.experts.mean_EP[first] + trial.experts.mean_EP[second]) / 2
    assert torch.allclose(trial.generate(samples=1, row=7)[0], wanted_P)
