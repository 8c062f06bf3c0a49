"""A data set as its publisher gives it: its files, where they go, and which of them are here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.api import Download, FetchPlan, find_captions

from .archive import unpacked
from .download import Remote, arrived, downloaded

_ARCHIVES = (".zip", ".tar.gz", ".tgz")


def _all(name: str) -> bool:
    return True


@dataclass(frozen=True)
class Piece:
    """A file of a data set, and what it brings."""

    remote: Remote
    is_here: Callable[[], bool]
    """Whether what it brings is there already, all of it, whoever put it there."""
    wanted: Callable[[str], bool] = _all
    """Which entries of an archive are unpacked."""


@dataclass(frozen=True)
class Published:
    """A data set's files in the order in which they are fetched: lists first, then the images that they name.

    Nothing is downloaded that is here.
    """

    root: Path
    """The data set's folder. Downloads lie in it."""
    pieces: Sequence[Piece]
    within: Path
    """Where archives are unpacked: root, or the folder above it for an archive that brings root."""
    captions: bool = True
    """Whether captions or classes come with it; else its user writes captions."""
    images: int | None = None
    """How many photos it has; None if that is unknown."""

    def plan(self) -> FetchPlan:
        """What `fetch` would download."""
        downloads = [
            Download(
                piece.remote.url,
                path := self.root / piece.remote.name,
                piece.remote.size,
                arrived(path),
                piece.is_here(),
            )
            for piece in self.pieces
        ]
        captions = self.captions or find_captions(self.root) is not None
        return FetchPlan(self.root, downloads, captions, self.images)

    def fetch(self, note: Callable[[str], None]) -> Path:
        """Download, check and unpack what is not here. Returns the data set's folder. Raises Unavailable, BadFile."""
        if all(piece.is_here() for piece in self.pieces):
            note(f"{self.root} is there")
            return self.root
        for piece in self.pieces:
            if piece.is_here():  # asked again: the lists that came first say which images there are
                note(f"what {piece.remote.name} brings is there")
                continue
            path = downloaded(piece.remote, self.root, note)
            if path.name.endswith(_ARCHIVES):
                note(f"unpacking {path.name}")
                unpacked(path, self.within, piece.wanted)
                path.unlink()
        if not self.captions and find_captions(self.root) is None:
            note("captions.jsonl is not part of it: `sglora data caption` writes it")
        return self.root
