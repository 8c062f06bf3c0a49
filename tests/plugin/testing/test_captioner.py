"""The conformance checks of captioners: an example passes, and a fault is found."""

from __future__ import annotations

import pytest
import torch
from thirdparty.sglora_parrot import ParrotModel

from sglora_cli.errors import PluginError
from sglora_cli.testing import check_captioner


def test_the_example_of_a_captioner_passes():
    check_captioner(ParrotModel())


def test_a_captioner_that_rolls_its_own_dice_is_found():
    class Random(ParrotModel):
        def write(self, image, prompt, count, seed):
            return [str(torch.rand(1)) for _ in range(count)]

    with pytest.raises(PluginError, match="the same arguments returned different texts"):
        check_captioner(Random())
