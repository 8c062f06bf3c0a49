"""Files as CLIP-LoRA writes them: which layer of its list is which block."""

from __future__ import annotations

import math

import pytest
import torch
from thirdparty.sglora_clipling import WIDTH, Clipling

from sglora_cli.adapter import clip_lora
from sglora_cli.adapter.file import AdapterFile
from sglora_cli.adapter.read import read_adapter
from sglora_cli.errors import Mismatch
from sglora_cli.lora.layout import Layout, Site

pytestmark = pytest.mark.filterwarnings("ignore:.*does not record which model:sglora_cli.errors.SgloraWarning")
MODEL = Clipling()
BLOCKS = {
    "top": [11],
    "top3": [9, 10, 11],
    "bottom": [0, 1, 2, 3],
    "mid": [4, 5, 6, 7],
    "up": [8, 9, 10, 11],
    "half-up": [6, 7, 8, 9, 10, 11],
    "half-bottom": [0, 1, 2, 3, 4, 5],
    "all": list(range(12)),
}


def saved(path, encoder, position, params, rank=3, alpha=2):
    """The file, and the dense updates it means: its list is filled as its program walks over the towers."""
    rng = torch.Generator().manual_seed(0)
    weights, dense = {}, {}
    for tower in {"text": ["text"], "vision": ["vision"], "both": ["text", "vision"]}[encoder]:
        for block in range(12):
            if block in BLOCKS[position]:
                layer = {}
                for x in params:
                    a = torch.randn(rank, WIDTH, generator=rng)
                    b = torch.randn(WIDTH, rank, generator=rng)
                    layer[f"{x}_proj"] = {"w_lora_A": a, "w_lora_B": b}
                    name = f"{tower}_model.encoder.layers.{block}.self_attn.{x}_proj"
                    dense[name] = alpha / math.sqrt(rank) * b @ a
                weights[f"layer_{len(weights)}"] = layer
    metadata = {"r": rank, "alpha": alpha, "encoder": encoder, "params": params, "position": position}
    torch.save({"weights": weights, "metadata": metadata}, path)
    return dense


@pytest.mark.parametrize("params", [["q", "k", "v"], ["v"], ["q", "v"]])
@pytest.mark.parametrize("position", BLOCKS)
@pytest.mark.parametrize("encoder", ["vision", "both"])
def test_every_layer_finds_its_block(tmp_path, encoder, position, params):
    dense = saved(tmp_path / "x.pt", encoder, position, params)
    foreign = read_adapter(tmp_path / "x.pt")
    assert set(foreign.parts) == set(dense)
    placed = read_adapter(tmp_path / "x.pt", MODEL, visual_only=encoder == "both")
    for site in MODEL.sites:
        b, a = placed.parts[site.name]
        wanted = dense.get(site.name, torch.zeros(WIDTH, WIDTH))
        assert torch.allclose((b @ a).float(), wanted, atol=1e-5)


def test_the_text_tower_is_left_out_only_when_asked(tmp_path):
    saved(tmp_path / "x.pt", "both", "all", ["q"])
    with pytest.raises(Mismatch, match="12 updates outside the visual encoder"):
        read_adapter(tmp_path / "x.pt", MODEL)


def test_a_deeper_tower_than_its_loader_reaches_is_not_written(tmp_path):
    sites = tuple(Site(f"vision_model.encoder.layers.{i}.self_attn.{x}_proj", 4, 4) for i in range(24) for x in "qkv")
    layout = Layout(sites, 1, 1.0)
    with pytest.raises(Mismatch, match="does not support the 24 blocks"):
        clip_lora.write(tmp_path / "x.pt", AdapterFile(layout, torch.ones(layout.size), {}), MODEL)
    assert list(tmp_path.iterdir()) == []
