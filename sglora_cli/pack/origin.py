"""References to packs on the Hugging Face hub, and records of the packs that were pulled from it.

A record is stored in the user cache under the hash of the pack's pack.json, not in the pack itself. A pulled pack is
therefore identical to the published one, a pack that changes later loses its record, and an archive cannot claim an
origin.
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
"""The default revision."""
_PART = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_REVISION = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_LONGEST = 96
"""Maximum length of OWNER/NAME on the hub."""
_URL = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([^/]+/[^/?#]+)")


@dataclass(frozen=True)
class Reference:
    """A pack on the hub, written hf:OWNER/NAME or hf:OWNER/NAME@REVISION.

    >>> str(Reference.parse("hf:ann/toys")), str(Reference.parse("hf:ann/toys@v1"))
    ('hf:ann/toys', 'hf:ann/toys@v1')
    """

    repository: str
    """OWNER/NAME."""
    revision: str = MAIN
    """A branch, a tag or a commit."""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse hf:OWNER/NAME or hf:OWNER/NAME@REVISION. Raises UsageError for anything else."""
        repository, at, revision = text.removeprefix(PREFIX).partition("@")
        if not _is_repository(repository) or not text.startswith(PREFIX):
            meant = found[1] if (found := _URL.match(text)) else repository
            right = f"try {PREFIX}{meant}{at}{revision}" if _is_repository(meant) else "use the form hf:OWNER/NAME"
            raise UsageError(f"{text[:120]!r} is not a reference to a pack on the hub", right)
        if at and (not _REVISION.fullmatch(revision) or ".." in revision or len(revision) > 200):
            raise UsageError(
                f"{text[:200]!r} has no valid revision after @", "add a branch, tag or commit after @, or omit @"
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
    """The provenance of a pulled pack."""

    repository: str
    commit: str
    revision: str
    """The requested branch, tag or commit."""
    sha256: str
    """SHA-256 of the archive."""
    pulled: str
    """Time of the pull in UTC (ISO 8601)."""

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}@{self.commit}"

    @property
    def short(self) -> str:
        """The reference with the first 12 digits of the commit, which suffice to name an installed pack."""
        return f"{PREFIX}{self.repository}@{self.commit[:12]}"

    def fits(self, reference: Reference) -> bool:
        """Return whether the reference names a pack of this origin."""
        if self.repository != reference.repository:
            return False
        by_commit = reference.is_commit and self.commit.startswith(reference.revision)
        return by_commit or self.revision == reference.revision


def origins(folder: Path) -> list[Origin]:
    """Return the origins of the pack in a folder, newest first. It has none if it was not pulled or has changed."""
    with suppress(BadFile, TypeError):
        known = [Origin(**one) for one in read_sealed(_record(folder))]
        return sorted(known, key=lambda origin: origin.pulled, reverse=True)
    return []


def remember(folder: Path, origin: Origin) -> None:
    """Record the origin of the pack in a folder. Raises Unavailable if the record cannot be written."""
    same = (origin.repository, origin.commit, origin.revision)
    others = [one for one in origins(folder) if (one.repository, one.commit, one.revision) != same]
    write_sealed(_record(folder), [asdict(one) for one in (origin, *others)])


def _record(folder: Path) -> Path:
    return cache_folder() / "origins" / f"{file_hash(folder / MANIFEST)}.json"
