"""The file of a pack's moments: mean embeddings of the seen tasks' photos and captions (`plugin.values.Moments`).

moments.safetensors: sentences, images, captions (T, D). If the image encoder ends in a linear map W, it also has
projection (D, I) and length (I,). The header has the tasks' keys, and the name of the site of W or "".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.errors import BadFile
from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.lora.layout import Site, checked_flat
from sglora_cli.plugin.values import Moments

if TYPE_CHECKING:
    from torch import Tensor

MOMENTS = "moments.safetensors"
_OF_TASKS, _OF_PROJECTION = ("sentences", "images", "captions"), ("projection", "length")


def save_moments(folder: Path, moments: Moments) -> None:
    tensors = {"sentences": moments.sentences_TD, "images": moments.images_TD, "captions": moments.captions_TD}
    if moments.projection_DI is not None and moments.length_I is not None:
        tensors |= {"projection": moments.projection_DI, "length": moments.length_I}
    name = moments.projection.name if moments.projection else ""
    save_tensors(folder / MOMENTS, tensors, {"kind": "moments", "tasks": list(moments.tasks), "projection": name})


def load_moments(folder: Path) -> Moments:
    """Load the moments. Raises BadFile for an inconsistent file, Mismatch for numbers that are not finite."""
    path = folder / MOMENTS
    tensors, metadata = load_tensors(path)
    tasks, name = metadata.get("tasks"), metadata.get("projection", "")
    if not isinstance(tasks, list) or not isinstance(name, str) or not _fit(tensors, len(tasks), bool(name)):
        raise BadFile(f"{path} does not contain the moments of its tasks", "build the pack again")
    numbers = {of: checked_flat(tensor.float(), str(path)) for of, tensor in tensors.items()}
    moments = Moments(tuple(map(str, tasks)), numbers["sentences"], numbers["images"], numbers["captions"])
    if not name:
        return moments
    w_DI = numbers["projection"]
    return replace(moments, projection=Site(name, *w_DI.shape), projection_DI=w_DI, length_I=numbers["length"])


def _fit(tensors: Mapping[str, Tensor], tasks: int, projection: bool) -> bool:
    """Whether the tensors are complete and their shapes are consistent."""
    if set(tensors) != {*_OF_TASKS, *(_OF_PROJECTION if projection else ())} or not tasks:
        return False
    width = tensors["images"].shape[-1] if tensors["images"].ndim else 0
    fits = all(tensors[of].shape == (tasks, width) for of in _OF_TASKS)
    if projection:
        w_DI, length_I = (tensors[of] for of in _OF_PROJECTION)
        fits = fits and w_DI.ndim == 2 and len(w_DI) == width and length_I.shape == w_DI.shape[1:]
    return fits
