"""Adapters to measure, and the file in which one step of a measurement leaves them for another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files.tensors import load_sealed, save_sealed
from sglora_cli.lora.layout import Layout


@dataclass(frozen=True)
class Candidate:
    """An adapter to measure, and where it comes from."""

    method: str
    layout: Layout
    flat_P: Tensor
    """(P,), or (N, P) if each image of the task has its own adapter."""
    sample: int = 0
    seed: int = 0
    sentence: str = ""
    """Key of the task whose sentence made the adapter, "" for the measured task itself."""


def save_candidates(path: Path, candidates: Sequence[Candidate]) -> None:
    """Write adapters to a file, without any loss of precision."""
    labels = [[c.method, c.layout.to_json(), c.sample, c.seed, c.sentence] for c in candidates]
    tensors = {str(n): c.flat_P.clone() for n, c in enumerate(candidates)}  # the format refuses shared memory
    save_sealed(path, tensors, {"candidates": labels})


def load_candidates(path: Path) -> list[Candidate] | None:
    """Return the adapters of a file in their order, or None if there is no such file or it is damaged."""
    try:
        tensors, metadata = load_sealed(path)
        return [
            Candidate(str(method), Layout.restore(layout), tensors[str(n)], int(sample), int(seed), str(sentence))
            for n, (method, layout, sample, seed, sentence) in enumerate(metadata["candidates"])
        ]
    except (BadFile, Mismatch, KeyError, TypeError, ValueError):
        return None
