"""Colour names measured in the pixels, for photos that only have a class name.

A class name says what an object is, but not which of two tulips is the red one. The
colours of a photo's centre and border do, without an annotator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from PIL.Image import Image

NAMES = ("black", "white", "grey", "brown", "red", "orange", "yellow", "green", "blue", "purple", "pink")
_SIDE = 48


def shares(image: Image) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the shares of each colour of NAMES in the centre and in the border: two vectors that sum to 1."""
    hsv = numpy.asarray(image.convert("RGB").resize((_SIDE, _SIDE)).convert("HSV"), dtype=float)
    named = _name(hsv[..., 0] * 360 / 255, hsv[..., 1] / 255, hsv[..., 2] / 255)
    y, x = numpy.mgrid[:_SIDE, :_SIDE] / (_SIDE - 1) - 0.5
    middle = numpy.hypot(x, y) < 0.27
    border = numpy.maximum(abs(x), abs(y)) > 0.36
    return _histogram(named[middle]), _histogram(named[border])


def _histogram(named: numpy.ndarray) -> numpy.ndarray:
    return numpy.bincount(named, minlength=len(NAMES)) / named.size


def _name(hue: numpy.ndarray, saturation: numpy.ndarray, value: numpy.ndarray) -> numpy.ndarray:
    """Return an index into NAMES for each pixel. Hue is in degrees, the others in [0, 1]."""
    by_hue = numpy.select(
        [hue < 14, hue < 40, hue < 68, hue < 165, hue < 255, hue < 292, hue < 345],
        [NAMES.index(n) for n in ("red", "orange", "yellow", "green", "blue", "purple", "pink")],
        NAMES.index("red"),
    )
    reddish = (hue < 20) | (hue >= 330)
    return numpy.select(
        [
            value < 0.2,
            (saturation < 0.13) & (value > 0.75),
            saturation < 0.13,
            reddish & (saturation < 0.5) & (value > 0.6),
            (hue < 45) & (value < 0.6),
            (hue >= 20) & (hue < 45) & (saturation < 0.45),
        ],
        [NAMES.index(n) for n in ("black", "white", "grey", "pink", "brown", "brown")],
        by_hue,
    )


def phrases(name: str, middle: numpy.ndarray, border: numpy.ndarray) -> list[str]:
    """Return captions with the colours of a photo, or none if no colour dominates.

    >>> red, green = numpy.eye(len(NAMES))[[4, 7]]
    >>> phrases("tulip", red, green)[0]
    'a red tulip against a green background'
    """
    first, second = numpy.argsort(-middle, kind="stable")[:2]
    behind = NAMES[int(numpy.argmax(border))]
    one, two = NAMES[first], NAMES[second]
    captions = []
    if middle[first] > 0.4 and border.max() > 0.4:
        captions.append(f"a {one} {name} against a {behind} background")
    if middle[first] > 0.4:
        captions.append(f"a close-up of a {one} {name}")
    if middle[second] > 0.2:
        captions.append(f"the {name} is {one} and {two}")
    if middle[second] > 0.2 and border.max() > 0.4:
        captions.append(f"a {one} and {two} {name}, {behind} behind it")
    if border.max() > 0.6:
        captions.append(f"a {name} on {'an' if behind == 'orange' else 'a'} {behind} ground")
    return captions
