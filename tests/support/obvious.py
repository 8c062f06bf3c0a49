"""Scores of the tiny backbone the slow, obvious way."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from sglora_cli.adapter.file import load_adapter


def obvious_scores(adapter: Path, files: list[Path], texts: list[str]) -> tuple[list[list[float]], list[list[float]]]:
    """[image][sentence], one image at a time."""
    from sglora_tiny import TinyModel

    model, loaded = TinyModel(), load_adapter(adapter)
    text_CD = model.encode_text(texts)
    sides: tuple[list[list[float]], list[list[float]]] = ([], [])
    for file in files:
        stem = model.stem([Image.open(file).convert("RGB")])
        for side, adapters in zip(sides, (None, loaded.flat_P[None]), strict=True):
            image_ND = model.encode_image(stem, loaded.layout, adapters).reshape(1, -1)
            side.append([round(x, 6) for x in (image_ND @ text_CD.T)[0].tolist()])
    return sides
