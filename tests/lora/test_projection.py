"""The last projection as a site: apart from the others, and as if merged."""

from __future__ import annotations

import pytest
import torch

from sglora_cli.lora.layout import Layout, Site
from sglora_cli.lora.projection import project, split_projection

Q, HEAD = Site("q", 5, 7), Site("head", 6, 8)
T, N = 3, 4


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("others", [(), (Q,)])
@pytest.mark.parametrize("own_images", [False, True])
def test_an_update_of_the_projection_equals_a_merged_one(others, own_images):
    layout, weight_DI = Layout((*others, HEAD), 2, 3.0), numbers(6, 8)
    flat_TP, x = numbers(T, layout.size), numbers(T, N, 8) if own_images else numbers(N, 8)
    _, update = split_projection(layout, flat_TP, HEAD)
    made_TND = project(x, weight_DI, update)
    b_TDR, a_TRI = layout.split(flat_TP)["head"]
    for t in range(T):
        merged_DI = weight_DI + 1.5 * b_TDR[t] @ a_TRI[t]
        assert torch.allclose(made_TND[t], (x[t] if own_images else x) @ merged_DI.T, atol=1e-4)


def test_the_other_sites_keep_their_numbers():
    layout = Layout((Q, HEAD), 2, 3.0)
    flat_TP = numbers(T, layout.size)
    attention, update = split_projection(layout, flat_TP, HEAD)
    assert attention is not None
    assert attention[0] == Layout((Q,), 2, 3.0)
    assert torch.equal(attention[1], flat_TP[:, : attention[0].size])
    assert update is not None


@pytest.mark.parametrize("projection", [None, HEAD])
def test_a_layout_without_the_projection_is_all_of_other_sites(projection):
    layout = Layout((Q,), 2, 3.0)
    flat_TP = numbers(T, layout.size)
    attention, update = split_projection(layout, flat_TP, projection)
    assert attention is not None
    assert attention[0] == layout and attention[1] is flat_TP  # noqa: PT018
    assert update is None


def test_without_an_update_the_map_is_plain():
    x_NI, weight_DI = numbers(N, 8), numbers(6, 8)
    assert torch.allclose(project(x_NI, weight_DI), x_NI @ weight_DI.T)


def test_under_autocast_the_update_has_the_narrow_type_of_the_map():
    layout, weight_DI, x_NI = Layout((HEAD,), 2, 3.0), numbers(6, 8), numbers(N, 8)
    _, update = split_projection(layout, numbers(T, layout.size), HEAD)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = project(x_NI, weight_DI, update)
    assert narrow.dtype == torch.bfloat16
    assert torch.allclose(narrow.float(), project(x_NI, weight_DI, update), atol=0.5, rtol=0.05)
