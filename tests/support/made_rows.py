"""Rows files made by hand, for reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

LABELS = {
    "chance": "Chance",
    "zero-shot": "Zero-shot",
    "oracle": "Oracle",
    "top-k": "Top-K weighted",
    "cvae": "SG-LoRA",
}
HEADER = {"sglora_rows": 1, "pack": "toys", "backbone": "tiny", "labels": LABELS, "against": "top-k"}


def row_of(method="top-k", task="mug", value=50.0, **more):
    fixed = {"dataset": "toys", "sample": 0, "seed": 0, "direction": "I2T", "k": 1}
    return {"method": method, "task": task, "value": value} | fixed | more


def hand_made(methods=tuple(LABELS)):
    """Rows of every method: values that differ by method, task, direction and k."""
    return [
        row_of(method, task, 10.0 * m + 3 * t + 2 * d + k / 10, direction=direction, k=k)
        for m, method in enumerate(methods)
        for t, task in enumerate(("mug", "nest"))
        for d, direction in enumerate(("I2T", "T2I"))
        for k in (1, 5, 10)
    ]


def write_made(path: Path, lines: Sequence[dict], header=HEADER) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in [header, *lines]))
    return path
