"""Rows and reports made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sglora_cli.plugin.values import Report, Row

LABELS = {
    "chance": "Chance",
    "zero-shot": "Zero-shot",
    "oracle": "Oracle",
    "top-k": "Top-K weighted",
    "cvae": "SG-LoRA",
}
VALUES = {"chance": 99.0, "oracle": 98.0, "zero-shot": 20.0, "top-k": 31.04, "x": 31.0, "y": 25.0}
REPORT_LABELS = {"chance": "Chance", "zero-shot": "Zero-shot", "oracle": "Oracle", "top-k": "Top-K", "x": "X", "y": "Y"}
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


def made_report(directions=("I2T", "T2I", "ACC"), **more) -> Report:
    """A report of retrieval on coco and classification on cifar100, two tasks each; tasks differ by 2."""
    rows = []
    for method, value in VALUES.items():
        for direction in directions:
            for k in (1,) if direction == "ACC" else (1, 5):
                dataset = "cifar100" if direction == "ACC" else "coco"
                rows += [Row(method, dataset, f"t{t}", 0, direction, k, value + t) for t in (-1, 1)]
    gaps = {(m, d, 1): (v, v - 1, v + 1) for m, v in (("x", 5.0), ("y", -5.0), ("zero-shot", 0.5)) for d in directions}
    return Report("p", rows, REPORT_LABELS, gaps, "top-k", ["a note"], **more)
