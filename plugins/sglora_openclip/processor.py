"""Translate transformers' image processor (preprocessor_config.json) to open_clip's preprocessing settings.

Both resize, crop, divide by 255 and normalise, with different settings. What open_clip does not support is kept as a
description, so that using it raises an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sglora_cli.api import BadFile

from .said import Said, numbers_of_channels, plain

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's constants."""
_DEFAULTS = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": 224,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""Defaults of CLIPImageProcessor."""


def prepared(table: Mapping[str, Any], where: str) -> dict[str, Said]:
    """Return a processor's settings by open_clip's names, or {} if it does not process photos. Raises BadFile.

    Processors of other models than CLIP have other defaults, so only their explicit values are used.
    """
    kind = table.get("image_processor_type", table.get("feature_extractor_type", ""))
    if not isinstance(kind, str):
        raise BadFile(f"{where}: the type of the processor must be a string, got {kind!r:.100}")
    if "image_mean" not in table and not kind.startswith("CLIP"):
        return {}
    values = {key: value for key, value in table.items() if value is not None}
    if not kind or kind.startswith("CLIP"):
        values = {**_DEFAULTS, **values}
    elif type(size := values.get("size")) is int:  # only CLIP's means the shortest edge
        values["size"] = {"height": size, "width": size}
    for key in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        if not isinstance(values.get(key, True), bool):
            raise BadFile(f"{where}, {key} must be true or false, got {values[key]!r:.100}")
    said = _colours(values, where) | _geometry(values, where)
    if "resample" in values:
        said["interpolation"] = _interpolation(values["resample"], f"{where}, resample")
    return said


def _colours(values: Mapping[str, Any], where: str) -> dict[str, Said]:
    """Return mean and standard deviation in open_clip's units, for colours from 0 to 1."""
    factor = values.get("rescale_factor", 1 / 255)
    if type(factor) not in (int, float) or not math.isfinite(factor) or factor <= 0:
        raise BadFile(f"{where}, rescale_factor must be a number above 0, got {factor!r:.100}")
    scale = 255 * factor if values.get("do_rescale", True) else 255.0
    said = {}
    for key, name, neutral in (("mean", "image_mean", 0.0), ("std", "image_std", 1.0)):
        if name not in values and values.get("do_normalize", True):
            continue
        numbers = numbers_of_channels(values.get(name, neutral), f"{where}, {name}", 0.0 if key == "std" else None)
        if not values.get("do_normalize", True):
            numbers = [neutral] * 3
        if abs(scale - 1) > 1e-6:
            numbers = [x / scale for x in numbers]
        said[key] = Said(numbers, f"{where}, {name}")
    return said


def _geometry(values: Mapping[str, Any], where: str) -> dict[str, Said]:
    """Return size and resize mode. Modes that open_clip does not have are kept as descriptions."""
    if "size" not in values and values.get("do_resize", True):
        return {}
    if not values.get("do_resize", True):
        return {"resize_mode": Said("not at all", f"{where}, do_resize", "false")}
    size, crop = values["size"], values.get("crop_size") if values.get("do_center_crop") else None
    resized, square = _pixels(size, f"{where}, size"), _pixels(crop, f"{where}, crop_size") if crop else None
    place, text = f"{where}, size", plain(size) + (f", with crop_size {plain(crop)}" if crop else ", with no crop")
    edges = {"shortest_edge"} if isinstance(size, int) else set(size)
    mode = {("shortest_edge",): "shortest", ("height", "width"): "squash"}.get(tuple(sorted(edges)), "")
    whole = square == resized if mode == "shortest" else bool(mode) and square in (None, resized)
    if not whole:
        return {"resize_mode": Said(text, place, text)}
    pixels = list(resized) if resized[0] != resized[1] else resized[0]
    return {"size": Said(pixels, place, plain(size)), "resize_mode": Said(mode, place, text)}


def _pixels(size: Any, where: str) -> tuple[int, int]:
    """Return height and width of transformers' size. Raises BadFile."""
    table = size if isinstance(size, dict) else {"shortest_edge": size}
    edge = table.get("shortest_edge", table.get("longest_edge"))
    pair = (edge, edge) if edge is not None else (table.get("height"), table.get("width"))
    height, width = pair
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return height, width
    raise BadFile(f"{where} must be a number of pixels, or a table of them, got {size!r:.100}")


def _interpolation(value: Any, where: str) -> Said:
    name = _RESAMPLE.get(value) if type(value) is int else value
    if not isinstance(name, str):
        raise BadFile(f"{where} must be one of Pillow's numbers from 0 to 5, got {value!r:.100}")
    return Said(name.lower(), where, plain(value))
