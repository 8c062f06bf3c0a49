"""How many operations an image encoder takes, where adapters see the same photos and where each has its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.contracts import Model


def shared_and_own(model: Model, stem_N: Tensor, layout: Layout, flat_TP: Tensor) -> list[tuple[Tensor, int]]:
    """(features, FLOPs): with one stem for all adapters, then with a copy of it for each."""
    counted = []
    for stem in (stem_N, stem_N.expand(len(flat_TP), *stem_N.shape)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            counted.append((model.encode_image(stem, layout, flat_TP), counter.get_total_flops()))
    return counted
