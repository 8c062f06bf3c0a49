"""Tests of the backbone `example`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sglora_cli.api import RuntimeConfig
from sglora_cli.testing import BACKBONE_CHECKS

from sglora_example import Example
from sglora_example.model import ExampleModel


@pytest.fixture(scope="module")
def model() -> ExampleModel:
    return Example().load(RuntimeConfig(device="cpu"))


@pytest.mark.parametrize("check", BACKBONE_CHECKS, ids=lambda check: check.__name__)
def test_it_passes_the_conformance_kit(check: Callable[..., None], model: ExampleModel) -> None:
    check(model)


def test_it_is_the_same_model_every_time(model: ExampleModel) -> None:
    again = Example().load(RuntimeConfig(device="cpu"))
    assert again.fingerprint == model.fingerprint
    assert torch.equal(again.encode_text(["a pug"]), model.encode_text(["a pug"]))
