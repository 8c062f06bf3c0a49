"""What `sglora bench` is asked for. No torch: what cannot be meant is refused before it is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.config import ABLATIONS
from sglora_cli.errors import UsageError
from sglora_cli.plugin.values import TRAINING, UNSEEN


@dataclass(frozen=True)
class BenchRequest:
    """The command line of `sglora bench`."""

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
        """Raises UsageError for options that do not go together."""
        if self.on and self.data:
            raise UsageError("--on takes tasks from a pack, --data from photos", "leave out one of the two")
        if self.sentences and self.table not in ABLATIONS:
            raise UsageError(
                "--sentences needs a table that compares descriptions", "pass --table ablation-description"
            )
        if self.adapters and self.table in ABLATIONS:
            raise UsageError("an ablation is of a pack's methods, not of adapter files", "leave out one of the two")
        if self.role == TRAINING and (self.on or self.adapters):
            what = "--on takes tasks that a pack carries" if self.on else "--adapter measures adapter files"
            raise UsageError(f"{what}, --role training a pack's methods on its own photos", "leave out one of the two")
