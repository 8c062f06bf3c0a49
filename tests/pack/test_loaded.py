"""A pack opened for work: its generators compute where its backbone does."""

from __future__ import annotations

import pytest
import torch

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import UsageError
from sglora_cli.generate.session import Session
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.plugin.host import Host
from sglora_merge.merging import Merged


@pytest.fixture
def moves(monkeypatch) -> list[torch.device]:
    """The devices that rules were moved to."""
    devices: list[torch.device] = []
    monkeypatch.setattr(Merged, "on_device", lambda self, device: devices.append(device) or self)
    return devices


def test_generators_move_to_the_device_of_the_backbone(toy_pack, moves):
    loaded = LoadedPack.open(Host.load(), "toys", RuntimeConfig(device="cpu"))
    assert loaded.fitted("ties") is loaded.fitted("ties")
    loaded.fitted("lorahub")  # it has nothing to move
    loaded.fitted("ties:density=0.5")
    assert moves == [torch.device("cpu")] * 2
    Session(loaded, "dare-ties")
    assert moves == [torch.device("cpu")] * 3


def test_a_device_that_nothing_is_called_by_is_refused(toy_pack):
    loaded = LoadedPack.open(Host.load(), "toys", RuntimeConfig(device="abacus"))
    with pytest.raises(UsageError, match="there is no device 'abacus'"):
        loaded.fitted("ties")
