"""The request of a `sglora bench` command. No torch, so invalid requests are rejected before it is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.config import ABLATIONS
from sglora_cli.errors import UsageError
from sglora_cli.plugin.values import TRAINING, UNSEEN


@dataclass(frozen=True)
class BenchRequest:
    """The options of `sglora bench`."""

    baselines: str = "paper"
    pack: str = ""
    backbone: str = ""
    on: str = ""
    dataset: str = ""
    data: Path | None = None
    tasks: str = ""
    table: str = "all"
    adapters: Sequence[Path] = ()
    own_expert: bool = False
    sentences: Path | None = None
    role: str = UNSEEN

    def check(self) -> None:
        """Raise UsageError for options that cannot be combined."""
        if self.on and self.data:
            raise UsageError("--on reads tasks from a pack, --data reads them from photos", "pass only one of the two")
        if self.sentences and self.table not in ABLATIONS:
            raise UsageError(
                "--sentences requires a table that compares descriptions", "pass --table ablation-description"
            )
        if self.adapters and self.table in ABLATIONS:
            raise UsageError(
                "ablation tables vary the methods of a pack, not adapter files", "pass --adapter or --table, not both"
            )
        if self.role == TRAINING and (self.on or self.adapters):
            what = "--on takes tasks from a pack" if self.on else "--adapter measures adapter files"
            raise UsageError(
                f"{what}, but --role training measures a pack's methods on its own photos", "pass only one of the two"
            )
