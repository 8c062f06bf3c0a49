"""Packs from the Hugging Face hub.

A pack is one archive, NAME.sglora.zip, in a model repository. If the pack is signed, the signature is in
NAME.sglora.zip.sig. A pull downloads the archive to the user cache and imports it with the checks of `archive.py`.
Interrupted downloads resume.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sglora_cli.errors import BadFile, SgloraError, Unavailable, UsageError, unwritable
from sglora_cli.files.atomic import put_file
from sglora_cli.files.hashes import data_hash, file_hash
from sglora_cli.pack.archive import (
    ENTRY_LIMIT,
    SIGNATURE_LIMIT,
    SIGNATURE_SUFFIX,
    SUFFIX,
    TOTAL_LIMIT,
    check_absent,
    check_name,
    import_pack,
    signed,
)
from sglora_cli.pack.hub_client import DISK, BrokenOff, Counted, Listing, RemoteFile, listing_of, requests, resumes
from sglora_cli.pack.library import Library, PackLocation
from sglora_cli.pack.origin import Origin, Reference, origins, remember
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.host import Host
from sglora_cli.system import cache
from sglora_cli.system.hardware import free_disk, nearest_existing
from sglora_cli.system.locks import locked
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import remark, size, working
from sglora_cli.system.transfer import Attempts

_ARCHIVE_LIMIT = TOTAL_LIMIT + (ENTRY_LIMIT << 10)
"""Maximum size of an archive in bytes, including 1 KiB for the header of each entry."""
_TRIES, _PAUSE_SECONDS = 3, 1.0


@dataclass(frozen=True)
class PulledPack:
    """A pack that was pulled from the hub."""

    pack: Pack
    origin: Origin
    was_here: bool
    """Whether the pack was already on this machine, so that nothing was imported."""
    signed_by: str | None
    warnings: tuple[str, ...]


def local_name(host: Host, name: str) -> str:
    """Return the local name of the pack hf:OWNER/NAME, and pull the pack first if it is not on this machine.

    If it is on this machine, no request is sent to the hub. A newly pulled pack gets the first unused name of its own
    name, OWNER-NAME, and OWNER-NAME-COMMIT with 12 digits of the commit. Raises the errors of `pull`.
    """
    reference = Reference.parse(name)
    if location := Library(host.recipe_folders).pulled(reference):
        return location.name
    return _pull(host, reference, any_name=True).pack.folder.name


def pull(
    host: Host, reference: Reference, name: str = "", force: bool = False, signers: Path | None = None
) -> PulledPack:
    """Download a pack and import it as `name`, or under its own name.

    The download is skipped if the same archive was imported before and the pack has not changed since.

    force: replace an existing pack of that name.
    signers: allowed-signers file, as for `archive.signed`. If it is given, the archive is always downloaded and its
        signature checked.

    Raises Unavailable (no network, no access, not enough disk space), UnknownName (no such repository or revision),
    BadFile (no pack, a damaged one, or one that none of `signers` signed) or UsageError (the name is taken or invalid).
    """
    check_name(name)
    return _pull(host, reference, name, force, signers)


@cache.lease()
def _pull(
    host: Host,
    reference: Reference,
    name: str = "",
    force: bool = False,
    signers: Path | None = None,
    any_name: bool = False,
) -> PulledPack:
    if signers and not signers.is_file():
        raise BadFile.missing(signers)
    listing = listing_of(reference)
    file = listing.archive()
    library = Library(host.recipe_folders)
    origin = Origin(reference.repository, listing.commit, reference.revision, file.sha256, _now())
    here = None if force else _same(library, origin, name)
    if here and not signers:
        return _recorded(here, origin, None)
    if name and not here:
        check_absent(name, force)
    folder = cache_folder() / "downloads" / reference.repository.replace("/", "--") / (file.sha256 or listing.commit)
    lock = cache_folder() / "locks" / f"{data_hash(str(folder).encode())[:32]}.lock"
    with locked(folder, place=lock):  # otherwise two processes would append to the same file
        here = None if force else _same(library, origin, name)  # another process may have pulled it meanwhile
        if here and not signers:
            return _recorded(here, origin, None)
        remark(f"pulling    {origin.short}: {file.name}, {_size(file)}")
        path = _downloaded(listing, file, folder)
        with _labelled(folder, reference):
            who = None
            if signers:
                signature = _signature(listing, file, folder)
                with signed(path, signature, signers) as checked:
                    who = checked.by
                    if here:
                        shutil.rmtree(folder, ignore_errors=True)
                        return _recorded(here, origin, who)
                    imported = _imported(host, path, name, force, checked.copy, origin)
            else:
                name = _free_name(library, listing, file) if any_name else name
                imported = _imported(host, path, name, force, None, origin)
        shutil.rmtree(folder, ignore_errors=True)
    return PulledPack(imported.pack, origin, False, who, imported.warnings)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _size(file: RemoteFile) -> str:
    return "size unknown" if file.bytes is None else size(file.bytes)


def _same(library: Library, origin: Origin, name: str) -> PackLocation | None:
    """Return the installed pack from the same archive, or None. If `name` is given, the pack must have that name."""
    for location in library.packs():
        if location.origin == "built" and name in ("", location.name):
            for other in origins(location.folder):
                same = other.commit == origin.commit or (origin.sha256 and other.sha256 == origin.sha256)
                if other.repository == origin.repository and same:
                    return location
    return None


def _recorded(location: PackLocation, origin: Origin, who: str | None) -> PulledPack:
    remember(location.folder, origin)
    return PulledPack(Pack(location.folder), origin, True, who, ())


def _free_name(library: Library, listing: Listing, file: RemoteFile) -> str:
    """Return an unused name, so that the new pack neither replaces nor hides another pack."""
    reference = listing.reference
    own = file.name.removesuffix(SUFFIX)
    longer = f"{reference.owner}-{reference.name}".lstrip("_")[:80]
    for name in (own, longer):
        with suppress(UsageError):
            check_name(name)
            if name not in {location.name for location in library.packs()}:
                check_absent(name)
                return name
    return f"{longer}-{listing.commit[:12]}"


def _imported(host: Host, path: Path, name: str, force: bool, copy: Path | None, origin: Origin) -> Any:
    """Import the archive, and delete it if it is invalid, because a retry would fail too. Raises as `import_pack`."""
    try:
        return import_pack(host, path, name, force, copy, origin)
    except BadFile as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        other = f"sglora pack pull hf:{origin.repository}@REVISION"
        raise BadFile(error.message, f"try {other}, or tell the owner that the file on the hub is damaged") from None
    except Unavailable as error:
        hint = error.hint or "free some space there, or move the user folders with SGLORA_HOME"
        raise Unavailable(error.message, f"{hint}; the next pull uses the completed download") from None


@contextmanager
def _labelled(folder: Path, reference: Reference) -> Iterator[None]:
    """Make errors in the block name the file on the hub instead of its copy in the cache."""
    try:
        yield
    except SgloraError as error:
        raise type(error)(error.message.replace(f"{folder}/", f"{reference}/"), error.hint) from None


# Downloads


def _downloaded(listing: Listing, file: RemoteFile, folder: Path, limit: int = _ARCHIVE_LIMIT) -> Path:
    """Download a file to a folder and return its path. An interrupted download resumes.

    Raises Unavailable, or BadFile if the file is damaged or has more than `limit` bytes.
    """
    reference, path = listing.reference, folder / file.name
    if path.is_file():
        return path
    part = path.with_name(f"{file.name}.part")
    if file.bytes is not None and file.bytes > limit:
        raise BadFile(f"{reference}: {file.name} has {file.bytes} bytes, but the limit is {limit}", "ask its owner")
    start = part.stat().st_size if part.is_file() else 0
    if file.bytes is not None and start > file.bytes:
        part.unlink()
        start = 0
    _check_room(file, start)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as output, working(f"{file.name}, bytes", (file.bytes or 0) - start) as advance:
            _receive(listing, file, Counted(output, limit if file.bytes is None else file.bytes, advance), start)
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise unwritable(f"cannot write {part}", error, f"free some space there; {resumes(part)}") from None
    if file.sha256 and (digest := file_hash(part)) != file.sha256:
        part.unlink()
        raise BadFile(
            f"{reference}: {file.name} was damaged in transfer: SHA-256 {digest} instead of {file.sha256}",
            f"run `sglora pack pull {reference}` again; the damaged file was deleted",
        )
    put_file(part, path)
    return path


def _check_room(file: RemoteFile, start: int) -> None:
    """Raise Unavailable unless the disk has space for the archive and the imported pack."""
    needed, there = 2 * (file.bytes or 0) - start, nearest_existing(cache_folder())
    if needed > (free := free_disk(there)):
        raise Unavailable(
            f"{needed} bytes are needed to download and import {file.name}, but {there} has {free} left",
            "free some space there, or move the user folders with SGLORA_HOME",
        )


def _receive(listing: Listing, file: RemoteFile, output: Counted, start: int) -> None:
    """Request the rest of a file until it is complete, or _TRIES requests in a row received too little."""
    attempts, restarted = Attempts(_TRIES, _PAUSE_SECONDS), False
    while start != file.bytes:
        try:
            _receive_once(listing, file, output, start)
            return
        except BrokenOff as error:
            seconds = attempts.failed(output.tell() - start)
            start = output.tell()
            if seconds is None:
                raise Unavailable(error.message, error.hint) from None
            time.sleep(seconds)
        except BadFile:  # a server that ignores ranges sends the file from the start
            if restarted:
                raise
            output.seek(0)
            output.truncate()
            start, restarted = 0, True


def _receive_once(listing: Listing, file: RemoteFile, output: Counted, start: int) -> None:
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    reference = listing.reference
    url = f"{constants.ENDPOINT}/{reference.repository}/resolve/{listing.commit}/{quote(file.name)}"
    with requests(reference, "pull", output):
        headers = {**build_hf_headers(library_name="sglora"), "Accept-Encoding": "identity"}  # for byte ranges
        http_get(url, output, resume_size=start, headers=headers, expected_size=file.bytes)  # type: ignore[arg-type]


def _signature(listing: Listing, file: RemoteFile, folder: Path) -> Path:
    """Download the signature of the archive and return its path. Raises BadFile if there is none."""
    name = f"{file.name}{SIGNATURE_SUFFIX}"
    if name not in listing.files:
        raise BadFile(
            f"{listing.reference} has no {name}, so the pack is not signed",
            "ask its owner to sign the pack and push it again; nothing was imported",
        )
    path = folder / name
    path.unlink(missing_ok=True)  # the hub has no hash of it, so an older file would not be noticed
    path.with_name(f"{name}.part").unlink(missing_ok=True)
    return _downloaded(listing, listing.files[name], folder, SIGNATURE_LIMIT)
