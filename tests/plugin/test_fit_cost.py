"""What a fit needs: sizes by counting, times by trying a small part."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sglora_cli.plugin.fit_cost import parameters_of, projection_cost, reading_seconds, step_seconds


def test_parameters_are_counted_without_their_memory():
    assert parameters_of(lambda width: nn.Linear(10**6, width), 10**6) == 10**12 + 10**6


def test_a_network_too_large_to_be_tried_is_tried_narrower():
    widths = []

    def make(width):
        widths.append(width)
        return nn.Linear(2000, width)

    state = torch.get_rng_state()
    seconds = step_seconds(make, 10**7, lambda network: network(torch.ones(1, 2000)).square().mean())
    assert seconds > 0
    assert min(widths) < 20_000
    assert torch.equal(torch.get_rng_state(), state)


def test_a_projection_of_more_states_needs_no_more_than_their_coordinates():
    few, many = (projection_cost(500, 8, count) for count in (32, 3200))
    assert many[0] - few[0] == 8 * (3200 - 32)
    assert few[2] == many[2] == 2 * 8 * 500  # float16
    assert many[1] > 0
    assert reading_seconds(500, 32) > 0


@pytest.mark.parametrize("rank", [1, 128])
def test_the_size_of_vit_b_16_is_tried_in_a_second(rank):
    _, seconds, stored = projection_cost(110_592, rank, 4000)
    assert 0 < seconds < 3600
    assert stored == 2 * rank * 110_592
