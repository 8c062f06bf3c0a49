"""Write an adapter in any format, and verify the written file.

Shapes: N probe images, D embedding width, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.adapter import checkpoint, clip_lora, peft
from sglora_cli.adapter.file import AdapterFile, save_adapter
from sglora_cli.adapter.formats import Format
from sglora_cli.adapter.read import READERS, ReadOptions, recognise
from sglora_cli.errors import Mismatch
from sglora_cli.files.atomic import followed, put_file, put_folder, scratch_folder
from sglora_cli.lora.algebra import update_error
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.contracts import Model

PROBES, FEATURES_TOLERANCE = 2, 1e-5


def _native(path: Path, adapter: AdapterFile, model: Model) -> None:
    save_adapter(path, adapter.layout, adapter.flat_P, adapter.metadata)


_WRITERS: Mapping[str, Callable[[Path, AdapterFile, Model], None]] = {
    "safetensors": _native,
    "peft": peft.write,
    "peft-flat": peft.write_flat,
    "open_clip": checkpoint.write,
    "clip-lora": clip_lora.write,
}


def write_adapter(path: Path, adapter: AdapterFile, model: Model, format: Format) -> None:
    """Write an adapter, read it back, compare it, then move it into place. If a step fails, nothing is left behind.

    Raises Mismatch if the adapter was made for another model, has no effect on image features, or changes when it is
    written in this format.
    """
    adapter.check_model(model)
    path = followed(path)
    with scratch_folder(path) as folder:
        draft = folder / path.name
        if not format.suffix:
            draft.mkdir()
        _WRITERS[format.name](draft, adapter, model)
        _verify(draft, adapter, model, format)
        (put_file if format.suffix else put_folder)(draft, path)


def _verify(draft: Path, adapter: AdapterFile, model: Model, format: Format) -> None:
    layout = adapter.layout
    found = recognise(draft)
    # Not read_adapter, which would check the recorded backbone of the draft. Not every adapter records it.
    foreign = READERS[found.kind](found, ReadOptions(model, rank=layout.rank)).placed((layout.sites,))
    written_P, lost = foreign.fitted(layout)
    error = update_error(layout, written_P, adapter.flat_P)
    if error > format.tolerance or lost > format.tolerance:
        raise Mismatch(
            f"format {format.name!r} changes the adapter: the update differs by {max(error, lost):.2g}",
            "use another --format; the update may be too small for the precision of the backbone's numbers",
        )
    changed = [] if torch.equal(written_P, adapter.flat_P) else [written_P]  # equal bits have equal features
    plain_ND, expected_ND, *written_ND = _features(model, layout, adapter.flat_P, *changed)
    if torch.equal(expected_ND, plain_ND):
        raise Mismatch("the adapter has no effect on the features of probe images", "generate it again")
    gap = max((float((x_ND - expected_ND).abs().max()) for x_ND in written_ND), default=0.0)
    if not gap <= FEATURES_TOLERANCE:
        raise Mismatch(
            f"format {format.name!r} changes the adapter: features of probe images differ by {gap:.2g}",
            "use --precision fp32",
        )


def _features(model: Model, layout: Layout, *adapters_P: Tensor) -> list[Tensor]:
    """Return the features (N, D) of fixed pseudo-random images, without an adapter and with each adapter."""
    stem = model.stem(_probes())
    with torch.no_grad():
        plain_ND = model.encode_image(stem).float().cpu()
        return [plain_ND, *(model.encode_image(stem, layout, x_P[None])[0].float().cpu() for x_P in adapters_P)]


def _probes() -> list:  # type: ignore[type-arg]
    """Return N images of coarse coloured noise, the same on every machine."""
    import numpy
    from PIL import Image

    rng = numpy.random.RandomState(0)
    noise = rng.randint(0, 256, (PROBES, 8, 8, 3), dtype=numpy.uint8)
    return [Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC) for pixels in noise]
