"""The captioner `example`: says what it was told the image shows, and how bright it is.

A real one loads a vision-language model in `load` and asks it with the prompt as it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sglora_cli.api import RuntimeConfig, hookimpl

if TYPE_CHECKING:
    from PIL.Image import Image

SGLORA_API = "1.0"
"""The plugin API this is written for; sglora says so where it does not fit."""
PLACES = ("in front", "in the middle", "at the side", "far away")


class ExampleModel:
    """The loaded captioner."""

    def write(self, image: Image, prompt: str, count: int, seed: int) -> Sequence[str]:
        """`count` captions; the prompt ends with "Input: A photo of pug. Output:", after demonstrations.

        The same arguments must give the same texts, whatever was asked before: all chance comes from `seed`.
        """
        shown = prompt.rpartition("A photo of ")[2].removesuffix(". Output:")
        (brightness,) = image.convert("L").resize((1, 1)).tobytes()
        light = "bright" if brightness > 127 else "dark"
        rng = random.Random(seed)
        return [f"A {light} photo with a {shown} {rng.choice(PLACES)}." for _ in range(count)]


class Example:
    """What sglora lists."""

    name = "example"
    summary = "says what it is told, and how bright the image is"

    def load(self, runtime: RuntimeConfig) -> ExampleModel:
        """`runtime` says device, precision and a folder of weights, if the user named one."""
        return ExampleModel()


@hookimpl
def sglora_captioners() -> list[Example]:
    return [Example()]
