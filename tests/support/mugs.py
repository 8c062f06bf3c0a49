"""An adapter for a mug, of the third-party backbone `clipling`."""

from __future__ import annotations

from pathlib import Path

import torch
from thirdparty.sglora_clipling import Clipling

from sglora_cli.adapter.file import save_adapter
from sglora_cli.lora.layout import Layout

MODEL = Clipling()
LAYOUT = Layout(MODEL.sites, 2, 3.0)
FLAT = 0.3 * torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(0))
OUT = {"safetensors": "o.safetensors", "peft": "o", "peft-flat": "o", "open_clip": "o.safetensors", "clip-lora": "o.pt"}
"""A place for each format."""


def save_mug(folder: Path) -> Path:
    metadata = {"backbone": "clipling", "fingerprint": MODEL.fingerprint, "description": "a mug", "pack": "p"}
    save_adapter(folder / "mug.safetensors", LAYOUT, FLAT, {**metadata, "generator": "cvae"})
    return folder / "mug.safetensors"
