"""Images without meaning that no two seeds have alike, and the captions of a data set of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def speckles(seed: int, pixels: int = 64) -> Image.Image:
    """A square image, smooth and in colour."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((pixels, pixels), Image.Resampling.BICUBIC)


def write_rows(root: Path, rows: list[dict]) -> None:
    """The captions of a data set, for `folder` and for the test's own `loose`."""
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loose = [[row["image"], row["task"], row["split"], row["captions"]] for row in rows]
    (root / "loose.json").write_text(json.dumps(loose))
