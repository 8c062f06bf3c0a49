"""A setting of weights with the file and key it comes from, and the comparison of such settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sglora_cli.api import BadFile

CHOICES = {"interpolation": ("bicubic", "bilinear", "random"), "resize_mode": ("shortest", "longest", "squash")}
"""The supported values of open_clip's preprocessing."""
_TOLERANCE = 1e-3
"""Tolerance for colour means, which range to 1, because files round them."""


@dataclass(frozen=True)
class Said:
    """A value with its file and key. `text` is the value as written in the file, if that differs."""

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
    """Return whether two values of open_clip's preprocessing differ."""
    if key in ("mean", "std"):
        return any(abs(a - b) > _TOLERANCE for a, b in zip(one, two, strict=True))
    return size_of(one) != size_of(two) if key == "size" else bool(one != two)


def numbers_of_channels(value: Any, where: str, least: float | None = None) -> list[float] | tuple[float, ...]:
    """Return numbers for red, green and blue, or one number for all three. Raises BadFile, also for a number that is
    not greater than `least`."""
    values: Sequence[Any] = value if isinstance(value, list | tuple) else [value] * 3
    fit = len(values) == 3 and all(type(x) in (int, float) and math.isfinite(x) for x in values)
    if not fit or (least is not None and min(values) <= least):
        kind = "numbers" if least is None else f"numbers above {least:g}"
        raise BadFile(f"{where} must be three {kind}, got {value!r:.100}")
    return values  # type: ignore[return-value]


def size_of(value: Any, where: str = "") -> tuple[int, int]:
    """Return height and width. A single number means both. Raises BadFile."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(pair) != 2 or not all(type(n) is int and n > 0 for n in pair):
        raise BadFile(f"{where} must be a number of pixels, or height and width, got {value!r:.100}")
    return pair
