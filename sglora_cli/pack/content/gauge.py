"""The gauge of a pack's experts. Adapters of other programs are converted to it without reading the experts.

gauge.safetensors: mean (P,) float64, the mean adapter of the experts that the pack was built with; farthest (sites,)
and reach (1,), the distance of the farthest of them to the mean. Experts that are added later do not change the gauge,
so their order does not matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.errors import BadFile
from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.lora.layout import Layout, checked_flat

if TYPE_CHECKING:
    from sglora_cli.lora.gauge import Gauge

GAUGE = "gauge.safetensors"


def save_gauge(folder: Path, gauge: Gauge) -> None:
    import torch

    tensors = {
        "mean": gauge.mean_P.double(),
        "farthest": torch.tensor(gauge.farthest, dtype=torch.float64),
        "reach": torch.tensor([gauge.reach], dtype=torch.float64),
    }
    save_tensors(folder / GAUGE, tensors, {"kind": "gauge"})


def load_gauge(folder: Path, layout: Layout) -> Gauge:
    """Load the gauge. Raises BadFile if it does not fit the layout, Mismatch for numbers that are not finite."""
    from sglora_cli.lora.gauge import Gauge

    path = folder / GAUGE
    tensors, _ = load_tensors(path, ("mean", "farthest", "reach"))
    shapes = {"mean": (layout.size,), "farthest": (len(layout.sites),), "reach": (1,)}
    if any(tensors[name].shape != shape for name, shape in shapes.items()):
        raise BadFile(f"{path} does not fit this pack's experts", "build or fetch the pack again")
    mean_P, farthest, reach = (checked_flat(tensors[name].double(), str(path)) for name in shapes)
    return Gauge(mean_P, tuple(farthest.tolist()), float(reach))
