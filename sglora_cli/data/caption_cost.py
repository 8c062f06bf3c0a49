"""Estimate the cost of captions on this machine, in bytes, memory and seconds per photo, before a model is loaded."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sglora_cli.config import RuntimeConfig
from sglora_cli.plugin.contracts import SaysCaptionCost
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import CaptionerCost, Listed
from sglora_cli.system import settings
from sglora_cli.system.hardware import available_memory, compute_rates, free_device_memory, pick_device, pick_precision
from sglora_cli.system.progress import size, span

_SLOWEST = 3.0
"""A model reaches between all and a third of the rate of a large matrix product. Chosen, not measured."""
_SAMPLE, _PIXELS = 16, 1024 * 768
"""The number of photos whose size is read, and the pixels to assume if none of them can be opened."""


@dataclass(frozen=True)
class CaptionEstimate:
    """What a captioner needs on a device to caption the waiting photos."""

    captioner: str
    cost: CaptionerCost
    photos: int
    device: str
    precision: str
    memory: int
    """Bytes that the weights take in memory."""
    free_memory: int
    """Bytes that are free on the device."""
    seconds: tuple[float, float]
    """Estimated seconds per photo, at best and at worst. (0, 0) for a captioner without a model."""

    @property
    def fits(self) -> bool:
        return self.memory <= self.free_memory

    @property
    def slow(self) -> bool:
        """Whether a model runs without a GPU."""
        return bool(self.cost.model) and self.device == "cpu"

    def to_lines(self) -> list[str]:
        """The estimate as lines of text."""
        if not self.cost.model:
            return [f"captioner  {self.captioner}: no model, nothing to download"]
        fetched, memory = size(self.cost.download_bytes), f"{size(self.memory)} for the weights in {self.precision}"
        low, high = self.seconds
        lines = [
            f"captioner  {self.captioner}: {self.cost.model}, {self.cost.parameters / 1e9:.1f} billion parameters",
            f"download   {fetched}, once" if self.cost.download_bytes else "download   none, already on this machine",
            f"memory     {memory}, {size(self.free_memory)} free on {self.device}{'' if self.fits else ', too little'}",
            f"time       {span(low, high)} per photo on {self.device}, {span(low * self.photos, high * self.photos)} "
            f"for {self.photos}, estimated from the parameters and the speed of a matrix product on this machine",
        ]
        return lines + ([f"missing    {self.cost.lacks}"] if self.cost.lacks else [])

    def to_json(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        return {
            "captioner": self.captioner,
            "model": self.cost.model,
            "parameters": self.cost.parameters,
            "download_bytes": self.cost.download_bytes,
            "memory_bytes": self.memory,
            "free_memory_bytes": self.free_memory,
            "device": self.device,
            "seconds_a_photo": [round(seconds, 3) for seconds in self.seconds],
            "lacks": self.cost.lacks,
        }


def estimate(
    host: Host, captioner: str, runtime: RuntimeConfig, waiting: Sequence[Listed], captions: int
) -> CaptionEstimate | None:
    """Estimate what a captioner needs for `captions` captions of each photo; None if it declares no cost.

    Raises UsageError and Unavailable for a device that does not exist.
    """
    return estimate_of(host, captioner, runtime, len(waiting), captions, _pixels(waiting))


def estimate_of(
    host: Host, captioner: str, runtime: RuntimeConfig, photos: int, captions: int, pixels: int = _PIXELS
) -> CaptionEstimate | None:
    """The same for photos of which only the number is known, and perhaps their size."""
    plugin = host.captioners[captioner]
    if not isinstance(plugin, SaysCaptionCost):
        return None
    found = settings.runtime(runtime, captioner)
    cost = plugin.caption_cost(found, pixels, captions)
    if not cost.model:
        return CaptionEstimate(captioner, cost, photos, "", "", 0, 0, (0.0, 0.0))
    device = pick_device(found.device)
    dtype = pick_precision(found.precision, device)
    memory = cost.parameters * dtype.itemsize
    operations, reading = compute_rates(device, dtype)
    fewest, most = cost.caption_tokens
    return CaptionEstimate(
        captioner=captioner,
        cost=cost,
        photos=photos,
        device=str(device),
        precision=str(dtype).removeprefix("torch."),
        memory=memory,
        free_memory=free_device_memory(device) or available_memory(),
        seconds=(
            cost.photo_operations / operations + fewest * memory / reading,
            _SLOWEST * (cost.photo_operations / operations + most * memory / reading),
        ),
    )


def _pixels(waiting: Sequence[Listed]) -> int:
    """The median number of pixels per photo, from a sample."""
    from PIL import Image

    from sglora_cli.files.images import image_formats

    sizes = []
    for one in waiting[:: max(1, len(waiting) // _SAMPLE)][:_SAMPLE]:
        try:
            with Image.open(one.path, formats=image_formats()) as image:
                sizes.append(image.width * image.height)
        except Exception:  # a broken photo is reported when it is captioned
            continue
    return int(median(sizes)) if sizes else _PIXELS


def other_way(host: Host, dataset: str, root: Path, captioner: str, output: Path | None = None) -> str:
    """Return the command that captions the data set with a captioner that needs no model; "" if there is none."""
    if not (name := without_model(host, captioner)):
        return ""
    command = ["sglora", "data", "caption", dataset, "--path", str(root), "--captioner", name]
    return shlex.join([*command, *(["-o", str(output)] if output else [])])


def without_model(host: Host, captioner: str) -> str:
    """Return the name of another captioner that needs no model, or "" if there is none."""
    for name in sorted(host.captioners):
        plugin = host.captioners[name]
        if name == captioner or not isinstance(plugin, SaysCaptionCost):
            continue
        if not plugin.caption_cost(RuntimeConfig(), _PIXELS, 1).model:
            return name
    return ""
