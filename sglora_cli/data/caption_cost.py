"""What captions will cost on this machine, before a model is fetched or loaded: bytes, memory and seconds a photo."""

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
"""A model computes at between all and a third of the rate of a large matrix product. Chosen, not measured."""
_SAMPLE, _PIXELS = 16, 1024 * 768
"""Photos whose size is looked at; the pixels of photos that cannot be opened."""


@dataclass(frozen=True)
class CaptionEstimate:
    """What a captioner needs on a device, for photos that wait for captions."""

    captioner: str
    cost: CaptionerCost
    photos: int
    device: str
    precision: str
    memory: int
    """Bytes of the weights in memory."""
    free_memory: int
    seconds: tuple[float, float]
    """Of one photo, at best and at worst; an estimate. (0, 0) for a captioner without a model."""

    @property
    def fits(self) -> bool:
        return self.memory <= self.free_memory

    @property
    def slow(self) -> bool:
        """Whether a model computes without a GPU."""
        return bool(self.cost.model) and self.device == "cpu"

    def to_lines(self) -> list[str]:
        """The estimate in lines for a person."""
        if not self.cost.model:
            return [f"captioner  {self.captioner}: no model, nothing to download"]
        fetched, memory = size(self.cost.download_bytes), f"{size(self.memory)} for the weights in {self.precision}"
        low, high = self.seconds
        lines = [
            f"captioner  {self.captioner}: {self.cost.model}, {self.cost.parameters / 1e9:.1f} billion parameters",
            f"download   {fetched}, once" if self.cost.download_bytes else "download   nothing: it is on this machine",
            f"memory     {memory}, {size(self.free_memory)} free on {self.device}{'' if self.fits else ': too little'}",
            f"time       {span(low, high)} a photo on {self.device}, {span(low * self.photos, high * self.photos)} for "
            f"{self.photos}: an estimate from its parameters and the speed of a matrix product here",
        ]
        return lines + ([f"lacks      {self.cost.lacks}"] if self.cost.lacks else [])

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
    """What a captioner needs for so many captions of each photo; None where it does not say.

    Raises UsageError and Unavailable for a device that is not there.
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
    """How many pixels photos typically have."""
    from PIL import Image

    from sglora_cli.files.images import image_formats

    sizes = []
    for one in waiting[:: max(1, len(waiting) // _SAMPLE)][:_SAMPLE]:
        try:
            with Image.open(one.path, formats=image_formats()) as image:
                sizes.append(image.width * image.height)
        except Exception:  # a broken photo is named when it is its turn
            continue
    return int(median(sizes)) if sizes else _PIXELS


def other_way(host: Host, dataset: str, root: Path, captioner: str, output: Path | None = None) -> str:
    """The command that writes the captions with a captioner that needs no model; "" if there is none."""
    if not (name := without_model(host, captioner)):
        return ""
    command = ["sglora", "data", "caption", dataset, "--path", str(root), "--captioner", name]
    return shlex.join([*command, *(["-o", str(output)] if output else [])])


def without_model(host: Host, captioner: str) -> str:
    """The name of another captioner, one that needs no model; "" if there is none."""
    for name in sorted(host.captioners):
        plugin = host.captioners[name]
        if name == captioner or not isinstance(plugin, SaysCaptionCost):
            continue
        if not plugin.caption_cost(RuntimeConfig(), _PIXELS, 1).model:
            return name
    return ""
