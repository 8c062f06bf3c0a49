"""References to packs on the Hugging Face hub, and records of which packs here were pulled from there.

A record is stored under the hash of a pack's pack.json, in the user cache and not in the pack. Therefore a pulled pack
has the bytes that its author published, a pack that was changed here no longer counts as the published one, and no
archive can claim an origin.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sglora_cli.errors import BadFile, UsageError
from sglora_cli.files.hashes import file_hash
from sglora_cli.files.text import read_sealed, write_sealed
from sglora_cli.pack.content.manifest import MANIFEST
from sglora_cli.system.paths import cache_folder

PREFIX = "hf:"
MAIN = "main"
"""The revision that is meant where none is named."""
_PART = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_REVISION = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_LONGEST = 96
"""Characters of a repository's name on the hub, with its owner."""
_URL = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([^/]+/[^/?#]+)")


@dataclass(frozen=True)
class Reference:
    """A pack on the hub, as in hf:OWNER/NAME@REVISION.

    >>> str(Reference.parse("hf:ann/toys")), str(Reference.parse("hf:ann/toys@v1"))
    ('hf:ann/toys', 'hf:ann/toys@v1')
    """

    repository: str
    """OWNER/NAME."""
    revision: str = MAIN
    """A branch, a tag or a commit."""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises UsageError for anything but hf:OWNER/NAME or hf:OWNER/NAME@REVISION."""
        repository, at, revision = text.removeprefix(PREFIX).partition("@")
        if not _is_repository(repository) or not text.startswith(PREFIX):
            meant = found[1] if (found := _URL.match(text)) else repository
            right = f"try {PREFIX}{meant}{at}{revision}" if _is_repository(meant) else "write hf:OWNER/NAME"
            raise UsageError(f"{text[:120]!r} is not a pack on the hub, which is written hf:OWNER/NAME", right)
        if at and (not _REVISION.fullmatch(revision) or ".." in revision or len(revision) > 200):
            raise UsageError(
                f"{text[:200]!r} names no revision after the @", "write a branch, a tag or a commit, or leave out the @"
            )
        return cls(repository, revision or MAIN)

    def __str__(self) -> str:
        return PREFIX + self.repository + (f"@{self.revision}" if self.revision != MAIN else "")

    @property
    def owner(self) -> str:
        return self.repository.partition("/")[0]

    @property
    def name(self) -> str:
        return self.repository.partition("/")[2]

    @property
    def is_commit(self) -> bool:
        """Whether the revision looks like a commit's hash, or the beginning of one."""
        return bool(_COMMIT.fullmatch(self.revision))


def _is_repository(text: str) -> bool:
    return (
        bool(_REPOSITORY.fullmatch(text))
        and len(text) <= _LONGEST
        and not any(bad in text for bad in ("--", ".."))
        and not text.endswith(".git")
    )


@dataclass(frozen=True)
class Origin:
    """Where a pack was pulled from."""

    repository: str
    commit: str
    revision: str
    """As it was requested."""
    sha256: str
    """Of the archive."""
    pulled: str
    """When, in UTC (ISO 8601)."""

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}@{self.commit}"

    @property
    def short(self) -> str:
        """With the first 12 digits of the commit, which are enough to name a pack that is here."""
        return f"{PREFIX}{self.repository}@{self.commit[:12]}"

    def fits(self, reference: Reference) -> bool:
        """Whether a pack of this origin is what the reference means."""
        if self.repository != reference.repository:
            return False
        by_commit = reference.is_commit and self.commit.startswith(reference.revision)
        return by_commit or self.revision == reference.revision


def origins(folder: Path) -> list[Origin]:
    """Where the pack in a folder was pulled from, the newest first; [] if nowhere, or if it was changed since."""
    with suppress(BadFile, TypeError):
        known = [Origin(**one) for one in read_sealed(_record(folder))]
        return sorted(known, key=lambda origin: origin.pulled, reverse=True)
    return []


def remember(folder: Path, origin: Origin) -> None:
    """Record where the pack in a folder was pulled from. Raises Unavailable if the record cannot be written."""
    same = (origin.repository, origin.commit, origin.revision)
    others = [one for one in origins(folder) if (one.repository, one.commit, one.revision) != same]
    write_sealed(_record(folder), [asdict(one) for one in (origin, *others)])


def _record(folder: Path) -> Path:
    return cache_folder() / "origins" / f"{file_hash(folder / MANIFEST)}.json"
