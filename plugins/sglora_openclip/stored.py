"""A model in weight files, with facts about it that are cached as long as the files do not change.

Everything the host needs before it encodes a photo depends on the files alone. It is determined once with the complete
model in memory, and cached. From then on, only the text encoder's tensors are read.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sglora_cli.api import BadFile, SgloraWarning, Site, remembered

from .text import TextShape, text_state
from .weights import read_text


@dataclass(frozen=True)
class Known:
    """Cached facts about a model."""

    fingerprint: str
    sites: tuple[Site, ...]
    projection: Site | None
    scale: float
    text: TextShape | None
    """None if only open_clip itself can encode texts for it."""
    warnings: tuple[str, ...] = ()
    """Warnings that are repeated whenever it is loaded."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def restore(cls, text: str) -> Known:
        table = json.loads(text)
        table["sites"] = tuple(Site(**site) for site in table["sites"])
        table["projection"] = table["projection"] and Site(**table["projection"])
        table["text"] = table["text"] and TextShape(**table["text"])
        table["warnings"] = tuple(table["warnings"])
        return cls(**table)


class Stored:
    """An open_clip model in files. The first file has its weights."""

    def __init__(
        self,
        what: Sequence[Any],
        files: Sequence[Path],
        build: Callable[[], nn.Module],
        look: Callable[[nn.Module], Known],
    ) -> None:
        """what: everything besides the files that determines the model, as JSON values.  look: inspects a model."""
        self._what, self._files, self._build, self._look = json.dumps(what, sort_keys=True), files, build, look

    @cached_property
    def known(self) -> Known:
        """The facts. Raises the errors of `build`."""
        return self._known()

    def clip(self) -> nn.Module:
        """Return the complete model of `known`. Raises the errors of `build`, and BadFile if its files changed."""
        known, (clip, _) = self.known, self._built
        self._check(known)
        vars(self).pop("_built", None)  # the caller owns the model and may move it
        vars(self).pop("_found", None)
        return clip

    def text(self) -> dict[str, Tensor]:
        """Return the state of its text encoder. Raises BadFile, also if its files have changed."""
        known = self.known
        state = text_state(self._built[0].state_dict()) if "_built" in vars(self) else read_text(self._files[0])
        self._check(known)
        return state

    def _check(self, known: Known) -> None:
        if self._known() != known:
            raise BadFile(f"{self._files[0]} changed after its fingerprint was taken", "run it again")

    def _known(self) -> Known:
        return Known.restore(remembered(self._what, self._files, lambda: self._found))

    @cached_property
    def _found(self) -> str:
        clip, said = self._built
        known = self._look(clip)
        return Known(**{**vars(known), "warnings": said}).to_json()

    @cached_property
    def _built(self) -> tuple[nn.Module, tuple[str, ...]]:
        """The model, and the SgloraWarnings that were raised while building it."""
        ours = []
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                clip = self._build()
            ours = [one for one in caught if issubclass(one.category, SgloraWarning)]
            return clip, tuple(str(one.message) for one in ours)
        finally:  # all of them if building fails
            for one in caught:
                if one not in ours:
                    warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
