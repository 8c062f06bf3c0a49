"""Where long work stands, in a file: killed at any moment, it goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.drafts import drop_drafts
from sglora_cli.errors import BadFile
from sglora_cli.files import load_tensors, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

SECONDS = 20.0
"""Work done since the last checkpoint is lost in a kill: at most about so much."""


class Checkpoint:
    """Tensors and a table that say where some work stands. `first` is called before each write, to sync what the
    checkpoint relies on."""

    def __init__(self, path: Path, first: Callable[[], None] = lambda: None) -> None:
        self.path, self._first, self._last = path, first, time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was saved last; None if nothing was, or it is damaged. Tensors are copies, not views of the file."""
        try:
            tensors, about = load_tensors(self.path)
        except BadFile:
            return None
        return {name: tensor.clone() for name, tensor in tensors.items()}, about

    @property
    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._last >= SECONDS

    def save(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> None:
        self._first()
        save_tensors(self.path, tensors, about or {})
        self._last = time.monotonic()

    def drop(self) -> None:
        """The work is done."""
        self.path.unlink(missing_ok=True)
        drop_drafts(self.path)
