"""A value that a file says of weights, where it says it, and whether two such values are the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sglora_cli.api import BadFile

CHOICES = {"interpolation": ("bicubic", "bilinear", "random"), "resize_mode": ("shortest", "longest", "squash")}
"""What open_clip's preprocessing can be told in words."""
_TOLERANCE = 1e-3
"""Between means of colours, which range to 1: files round them."""


@dataclass(frozen=True)
class Said:
    """A value, and the file and key that say it. `text` is how the file says it, if that is another way."""

    value: Any
    where: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.where} is {self.text or plain(self.value)}"


def plain(value: Any) -> str:
    """
    >>> plain([0.5, 0.25]), plain("squash")
    ('[0.5, 0.25]', "'squash'")
    """
    return f"[{', '.join(map(plain, value))}]" if isinstance(value, list | tuple) else f"{value!r:.100}"


def different(key: str, one: Any, two: Any) -> bool:
    """Whether two values of open_clip's preprocessing are not the same."""
    if key in ("mean", "std"):
        return any(abs(a - b) > _TOLERANCE for a, b in zip(one, two, strict=True))
    return size_of(one) != size_of(two) if key == "size" else bool(one != two)


def numbers_of_channels(value: Any, where: str, least: float | None = None) -> list[float] | tuple[float, ...]:
    """A number for each of red, green and blue; a single one is for all. Raises BadFile, also if one is not above
    `least`."""
    values: Sequence[Any] = value if isinstance(value, list | tuple) else [value] * 3
    fit = len(values) == 3 and all(type(x) in (int, float) and math.isfinite(x) for x in values)
    if not fit or (least is not None and min(values) <= least):
        kind = "numbers" if least is None else f"numbers above {least:g}"
        raise BadFile(f"{where} must be three {kind}, got {value!r:.100}")
    return values  # type: ignore[return-value]


def size_of(value: Any, where: str = "") -> tuple[int, int]:
    """Height and width; one number is for both. Raises BadFile."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(pair) != 2 or not all(type(n) is int and n > 0 for n in pair):
        raise BadFile(f"{where} must be a number of pixels, or height and width, got {value!r:.100}")
    return pair
