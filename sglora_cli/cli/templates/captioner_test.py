"""Tests of the captioner `example`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image
from sglora_cli.api import RuntimeConfig
from sglora_cli.testing import CAPTIONER_CHECKS

from sglora_example import Example, ExampleModel


@pytest.mark.parametrize("check", CAPTIONER_CHECKS, ids=lambda check: check.__name__)
def test_it_passes_the_conformance_kit(check: Callable[..., None]) -> None:
    check(Example().load(RuntimeConfig()))


def test_it_says_what_it_sees() -> None:
    white, prompt = Image.new("RGB", (8, 8), "white"), "Input: A photo of pug. Output:"
    (text,) = ExampleModel().write(white, prompt, 1, seed=0)
    assert text.startswith("A bright photo with a pug ")
