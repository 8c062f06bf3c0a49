"""The captioner `example`, which writes the class from the prompt and the brightness of the image.

A real captioner loads a vision-language model in `load` and passes it the prompt unchanged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sglora_cli.api import RuntimeConfig, hookimpl

if TYPE_CHECKING:
    from PIL.Image import Image

SGLORA_API = "1.0"
"""Version of the plugin API this is written for. sglora reports an incompatible version."""
PLACES = ("in front", "in the middle", "at the side", "far away")


class ExampleModel:
    """The loaded captioner."""

    def write(self, image: Image, prompt: str, count: int, seed: int) -> Sequence[str]:
        """Return `count` captions. The prompt has demonstrations and ends with "Input: A photo of pug. Output:".

        The same arguments must always return the same captions, so all randomness comes from `seed`.
        """
        shown = prompt.rpartition("A photo of ")[2].removesuffix(". Output:")
        (brightness,) = image.convert("L").resize((1, 1)).tobytes()
        light = "bright" if brightness > 127 else "dark"
        rng = random.Random(seed)
        return [f"A {light} photo with a {shown} {rng.choice(PLACES)}." for _ in range(count)]


class Example:
    """The captioner that `sglora plugins list` shows."""

    name = "example"
    summary = "writes the class from the prompt and the image's brightness"

    def load(self, runtime: RuntimeConfig) -> ExampleModel:
        """Load the model. `runtime` has the device, the precision and the folder of weights, if the user passed one."""
        return ExampleModel()


@hookimpl
def sglora_captioners() -> list[Example]:
    return [Example()]
