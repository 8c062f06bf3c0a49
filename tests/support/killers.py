"""A checkpoint that is due at once, and stops its fit after some of its epochs as a killed process does."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sglora_cli.files.tensors import Checkpoint


class Kill(Exception):
    """Stands for a kill, right after a checkpoint was written."""


class Killer(Checkpoint):
    due = True

    def __init__(self, path: Path, epochs: Collection[int]) -> None:
        super().__init__(path)
        self.epochs = epochs

    def save(self, tensors, metadata=None):
        super().save(tensors, metadata)
        if metadata["epoch"] in self.epochs:
            raise Kill
