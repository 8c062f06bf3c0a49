"""A published data set: its files, where they are saved, and which of them are present."""

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
    """A file of a data set and its contents."""

    remote: Remote
    is_here: Callable[[], bool]
    """Whether all its contents are present, independent of how they got there."""
    wanted: Callable[[str], bool] = _all
    """Selects the entries of an archive to unpack."""


@dataclass(frozen=True)
class Published:
    """A data set's files in download order: lists first, then the images they name.

    Present files are not downloaded.
    """

    root: Path
    """The data set's folder, which also holds the downloads."""
    pieces: Sequence[Piece]
    within: Path
    """Where archives are unpacked: root, or its parent folder for an archive that contains root."""
    captions: bool = True
    """Whether captions or classes are included. Otherwise the user has to write captions."""
    images: int | None = None
    """Number of its photos, or None if that is unknown."""

    def plan(self) -> FetchPlan:
        """Return what `fetch` would download."""
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
        """Download, verify and unpack missing files. Returns the data set's folder. Raises Unavailable, BadFile."""
        if all(piece.is_here() for piece in self.pieces):
            note(f"{self.root} is complete")
            return self.root
        for piece in self.pieces:
            if piece.is_here():  # checked again, because the lists downloaded first name the images
                note(f"the contents of {piece.remote.name} are present")
                continue
            path = downloaded(piece.remote, self.root, note)
            if path.name.endswith(_ARCHIVES):
                note(f"unpacking {path.name}")
                unpacked(path, self.within, piece.wanted)
                path.unlink()
        if not self.captions and find_captions(self.root) is None:
            note("captions.jsonl is not included, `sglora data caption DATASET` writes it")
        return self.root
