"""A baseline captioner that combines a photo's task name and its colours, without a model or a download.

A caption contains the name of the photo's task and the measured colours of the photo's centre, border and sides.
Regions without a clear colour are not mentioned. The captioner recognises no shapes, counts or positions of objects.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from sglora_cli.api import CaptionerCost, RuntimeConfig, hookimpl

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

SGLORA_API = "1.0"

COLOURS = ("black", "grey", "white", "red", "orange", "brown", "yellow", "green", "blue", "purple", "pink")
MIDDLE, AROUND = "in the middle", "around it"
SIDE = 60
"""Width and height in pixels that a photo is reduced to."""
MAJORITY, PART, SMALL_PART = 0.5, 0.25, 0.15
"""Minimum shares of a region's pixels for one colour, for each of two, and for each of three colours."""
_DRAWS = 20
"""Sentences sampled per caption, because samples may repeat."""
DARK, BRIGHT = 0.3, 0.65
"""A photo with a mean brightness below the first is dark, above the second bright."""


def colour_names(image: Image) -> np.ndarray:
    """Return the colour of every pixel of the reduced photo, as (SIDE, SIDE) indices into COLOURS.

    The thresholds of hue in degrees, saturation and value were chosen by eye. Tests compare them with CSS colour names.
    """
    import numpy as np

    hsv = np.asarray(image.convert("RGB").resize((SIDE, SIDE)).convert("HSV"), dtype=float) / 255
    hue, saturation, value = hsv[..., 0] * 360, hsv[..., 1], hsv[..., 2]
    names = np.select(
        [hue < 15, hue < 42, hue < 68, hue < 170, hue < 255, hue < 305, hue < 340],
        [COLOURS.index(name) for name in ("red", "orange", "yellow", "green", "blue", "purple", "pink")],
        COLOURS.index("red"),
    )
    warm = (hue >= 12) & (hue < 48)
    rosy = (hue < 20) | (hue >= 340)
    rules = [
        ((value < 0.2), "black"),
        ((saturation < 0.16) & (value > 0.86), "white"),
        ((saturation < 0.12), "grey"),
        (warm & (value < 0.65), "brown"),
        (warm & (saturation < 0.5) & (value < 0.9), "brown"),
        (rosy & (saturation < 0.55) & (value > 0.6), "pink"),
    ]
    return np.select([where for where, _ in rules], [COLOURS.index(name) for _, name in rules], names)


def regions() -> Mapping[str, np.ndarray]:
    """Return region name -> its pixels in the reduced photo as a mask: (SIDE, SIDE) bool."""
    import numpy as np

    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE - 0.5
    return {
        MIDDLE: np.hypot(x, y) < 0.27,
        AROUND: np.maximum(abs(x), abs(y)) > 0.38,
        "at the top": y < -0.3,
        "at the bottom": y > 0.3,
        "on the left": x < -0.3,
        "on the right": x > 0.3,
    }


def colours_of(image: Image) -> dict[str, str]:
    """Return region -> its one, two or three colours. Regions with more colours are omitted.

    >>> from PIL import Image
    >>> photo = Image.new("RGB", (90, 60), "green")
    >>> photo.paste("red", (25, 15, 65, 45))
    >>> colours_of(photo)["in the middle"], colours_of(photo)["around it"]
    ('red', 'green')
    """
    import numpy as np

    names = colour_names(image)
    found = {}
    for region, inside in regions().items():
        shares = np.bincount(names[inside], minlength=len(COLOURS)) / inside.sum()
        first, second, third = np.argsort(-shares, kind="stable")[:3]
        if shares[second] >= PART:
            found[region] = f"{COLOURS[first]} and {COLOURS[second]}"
        elif shares[first] >= MAJORITY:
            found[region] = COLOURS[first]
        elif shares[third] >= SMALL_PART:
            found[region] = f"{COLOURS[first]}, {COLOURS[second]} and {COLOURS[third]}"
    return found


def brightness(image: Image) -> float:
    """Return the mean brightness of a photo, from 0 to 1."""
    import numpy as np

    return float(np.asarray(image.convert("L").resize((SIDE, SIDE))).mean()) / 255


def sentences(name: str, colours: Mapping[str, str], light: float, pick: random.Random) -> Iterator[str]:
    """Yield an endless sequence of captions with a name, the centre's colour and up to three sampled other regions.

    colours: the result of `colours_of`. light: the brightness.
    """
    photo = f"{'dark ' if light < DARK else 'bright ' if light > BRIGHT else ''}photo of {name}"
    middle, around = colours.get(MIDDLE, ""), colours.get(AROUND, "")
    sides = [f"{colour} {region}" for region, colour in colours.items() if region not in (MIDDLE, AROUND)]
    while True:
        details = pick.sample(sides, min(len(sides), pick.choice((1, 2, 2, 3))))
        if around and (not details or pick.random() < 0.5):
            details.insert(0, pick.choice((f"{around} {AROUND}", f"on a background of {around}")))
        heads = [f"{photo} in {middle}", f"{name}, {middle} {MIDDLE}"] if middle else [photo]
        if middle and details:
            heads.append(f"{middle} {name}")
        yield ", ".join([pick.choice(heads), *details])


@dataclass(frozen=True)
class Names:
    """The captioner `names`."""

    name: str = "names"
    summary: str = "baseline without a model: task names and colours"

    def load(self, runtime: RuntimeConfig) -> NamesModel:
        """Return the captioner, which needs no weights."""
        return NamesModel()

    def caption_cost(self, runtime: RuntimeConfig, pixels: int, captions: int) -> CaptionerCost:
        """Return no cost, because there is no model."""
        return CaptionerCost()


class NamesModel:
    """Writes captions from a name and colours."""

    def write(self, image: Image, prompt: str, count: int, seed: int) -> Sequence[str]:
        """Write `count` captions. The name is the last one in the prompt, after "A photo of"."""
        name = prompt.rpartition("A photo of ")[2].removesuffix(" Output:").removesuffix(".")
        endless = sentences(name, colours_of(image), brightness(image), random.Random(seed))
        texts = list(dict.fromkeys(islice(endless, _DRAWS * count)))[:count]
        texts += texts[:1] * (count - len(texts))  # a photo with few colours has few different captions
        return [text[0].upper() + text[1:] + "." for text in texts]


@hookimpl
def sglora_captioners() -> list[Names]:
    return [Names()]
