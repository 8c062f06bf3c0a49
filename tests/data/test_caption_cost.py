"""What captions will cost: the arithmetic, by hand, on a device whose speed is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from sglora_cli.config import RuntimeConfig
from sglora_cli.data import caption_cost
from sglora_cli.plugin.values import CaptionerCost, Listed
from sglora_cli.system.hardware import compute_rates

COST = CaptionerCost("big/model", 3_000_000_000, 6_000_000_000, 4e12, (10, 50))


class Big:
    name, summary = "big", "a captioner that says what it costs"

    def __init__(self):
        self.asked = []

    def caption_cost(self, runtime, pixels, captions):
        self.asked.append((pixels, captions))
        return COST


class Hosted:
    def __init__(self, plugin):
        self.captioners = {"big": plugin}


@pytest.fixture
def waiting(tmp_path):
    for n, size in enumerate(((10, 10), (20, 20), (30, 30))):
        Image.new("RGB", size).save(tmp_path / f"{n}.png")
    (tmp_path / "3.png").write_bytes(b"broken")
    return [Listed(f"{n}.png", tmp_path / f"{n}.png", ("cup",), "train") for n in range(4)]


@pytest.fixture
def known(waiting, monkeypatch):
    monkeypatch.setattr(caption_cost, "compute_rates", lambda device, dtype: (1e12, 24e9))
    monkeypatch.setattr(caption_cost, "available_memory", lambda: 10_000_000_000)
    return caption_cost.estimate(Hosted(Big()), "big", RuntimeConfig(device="cpu"), waiting, 3)


def test_a_photos_seconds_are_reading_it_and_every_weight_for_every_token(known):
    weights = 3e9 * 4  # float32 on a CPU
    assert known.memory == weights
    assert known.seconds == pytest.approx((4e12 / 1e12 + 10 * weights / 24e9, 3 * (4 + 50 * 0.5)))


def test_it_is_told_the_typical_size_of_photos_that_can_be_opened(waiting, known, monkeypatch):
    plugin = Big()
    caption_cost.estimate(Hosted(plugin), "big", RuntimeConfig(device="cpu"), waiting, 3)
    assert plugin.asked == [(400, 3)]


def test_lines_say_model_download_memory_and_time(known):
    assert known.to_lines() == [
        "captioner  big: big/model, 3.0 billion parameters",
        "download   6.0 GB, once",
        "memory     12.0 GB for the weights in float32, 10.0 GB free on cpu, too little",
        "time       9 to 87 s per photo on cpu, 36 s to 6 min for 4, estimated from the parameters and the speed of a "
        "matrix product on this machine",
    ]
    here = replace(known, cost=replace(COST, download_bytes=0, lacks="transformers"), free_memory=20_000_000_000)
    assert here.to_lines()[1:3] == [
        "download   none, already on this machine",
        "memory     12.0 GB for the weights in float32, 20.0 GB free on cpu",
    ]
    assert here.to_lines()[-1] == "missing    transformers"


def test_rates_are_those_of_products_that_run():
    operations, reading = compute_rates(torch.device("cpu"), torch.float32)
    assert 1e8 < operations < 1e14
    assert 1e8 < reading < 1e13
