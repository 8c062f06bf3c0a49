"""Tasks of random numbers for the backbone `tiny`."""

from __future__ import annotations

import torch
from thirdparty.sglora_tiny import TinyModel

from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.values import TaskTensors

MODEL = TinyModel()
LAYOUT = Layout(MODEL.sites, 2, 2.0)


def task(name: str, photos: int) -> TaskTensors:
    rng = torch.Generator().manual_seed(photos)
    text = torch.nn.functional.normalize(torch.randn(2 * photos, 8, generator=rng), dim=-1)
    return TaskTensors(
        name, torch.rand(photos, 4, 12, generator=rng).half(), text, tuple(i // 2 for i in range(2 * photos))
    )
