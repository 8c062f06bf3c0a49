"""Upload a pack to a model repository of the Hugging Face hub: archive, signature and model card in one commit."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile, Mismatch, SgloraError, Unavailable, UnknownName, UsageError
from sglora_cli.files.atomic import scratch_folder, write_bytes
from sglora_cli.files.escape import shell_word
from sglora_cli.pack.archive import NAMESPACE, SIGNATURE_LIMIT, SIGNATURE_SUFFIX, SUFFIX, export_pack, keygen
from sglora_cli.pack.card import hub_card
from sglora_cli.pack.hub_client import Listing, api, check_network, listing_of, reason_of, refusal, silent
from sglora_cli.pack.origin import Reference
from sglora_cli.pack.pack import Pack
from sglora_cli.system.locks import locked
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import is_quiet

CARD = "README.md"


@dataclass(frozen=True)
class Upload:
    """The files that a push uploads: name on the hub -> local copy."""

    pack: Pack
    files: Mapping[str, Path]

    def sizes(self) -> dict[str, int]:
        return {name: path.stat().st_size for name, path in self.files.items()}


@dataclass(frozen=True)
class Pushed:
    """The commit that a push created."""

    commit: str
    url: str


@contextmanager
def upload_of(pack: Pack, reference: Reference, licence: str = "", signature: Path | None = None) -> Iterator[Upload]:
    """Write the files that a push uploads to a temporary folder, which is deleted after the block.

    licence: an identifier of the hub, or "".
    signature: the signature of the archive that `export_pack` writes, or None.

    Raises BadFile for a damaged pack or a signature of another archive, and UsageError for an invalid licence.
    """
    if licence and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,60}", licence):
        raise UsageError(
            f"{licence[:100]!r} is not a valid licence identifier", "use an identifier of the hub, such as apache-2.0"
        )
    place = cache_folder() / "downloads" / f"push-{pack.name}"
    # The lock keeps another process from removing the folder as stale while an upload takes long.
    with locked(place, wait=False), scratch_folder(place) as folder:
        archive, card = folder / f"{pack.name}{SUFFIX}", folder / CARD
        export_pack(pack, archive)
        files = {archive.name: archive, CARD: card}
        if signature:
            files[f"{archive.name}{SIGNATURE_SUFFIX}"] = _checked_signature(archive, signature, folder, pack.name)
        write_bytes(card, hub_card(pack, str(reference), licence, bool(signature)).encode())
        yield Upload(pack, files)


def _checked_signature(archive: Path, signature: Path, folder: Path, name: str) -> Path:
    """Copy the signature and return the copy. Raises BadFile if it does not belong to the archive."""
    if not signature.is_file():
        raise BadFile.missing(signature)
    copy = folder / f"{archive.name}{SIGNATURE_SUFFIX}"
    with signature.open("rb") as file:
        write_bytes(copy, file.read(SIGNATURE_LIMIT))
    if keygen(archive, "check-novalidate", "-n", NAMESPACE, "-s", str(copy)).returncode:
        raise BadFile(
            f"{signature} is not a signature of pack {name!r} in its current state",
            f"sglora pack export {shell_word(name)} -o {shell_word(archive.name)} --force && "
            f"ssh-keygen -Y sign -n {NAMESPACE} -f KEY {shell_word(archive.name)}",
        )
    return copy


def repository_state(upload: Upload, reference: Reference, private: bool = False) -> Listing | None:
    """Return the files of the repository before the push, or None if the repository does not exist yet.

    Raises Unavailable without a network or a token, Mismatch if the repository contains another pack, and UsageError
    for a reference with a revision, or for a public repository if `private` is requested.
    """
    if str(reference) != f"hf:{reference.repository}":
        raise UsageError(
            f"{reference} names a revision, but a push creates a new one", f"use hf:{reference.repository}"
        )
    check_network(reference, "push")
    from huggingface_hub import get_token

    if not get_token():
        raise Unavailable("no token for the Hugging Face hub was found", "log in: hf auth login, or set HF_TOKEN")
    try:
        listing = listing_of(reference, "push")
    except UnknownName:
        return None
    if others := sorted(name for name in listing.files if name.endswith(SUFFIX) and name not in upload.files):
        raise Mismatch(
            f"{reference} contains another pack: {others[0]}",
            "push to another repository, or delete that file on the hub",
        )
    if private and not listing.private:
        raise UsageError(
            f"{reference} exists and is public", "make it private in its settings on the hub, or omit --private"
        )
    return listing


def push(upload: Upload, reference: Reference, there: Listing | None, private: bool = False) -> Pushed:
    """Upload a pack in one commit. The repository is created first if `there` is None. Raises Unavailable.

    If the upload has no signature, an older signature on the hub is deleted, because it belongs to another archive.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    hub = api()
    operations: list[Any] = [CommitOperationAdd(name, str(path)) for name, path in upload.files.items()]
    stale = {f"{name}{SIGNATURE_SUFFIX}" for name in upload.files} - set(upload.files)
    if there:
        operations += [CommitOperationDelete(name) for name in sorted(stale & set(there.files))]
    with _uploads(reference):
        if not there:
            hub.create_repo(reference.repository, private=private, exist_ok=True)
        done = hub.create_commit(
            reference.repository,
            operations,
            commit_message=f"Pack {upload.pack.name}",
            parent_commit=there.commit if there else None,
        )
    return Pushed(str(done.oid), str(done.commit_url))


@contextmanager
def _uploads(reference: Reference) -> Iterator[None]:
    """Convert errors of an upload to errors with hints, and hide log messages of huggingface_hub."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import logging as hub_logging

    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.CRITICAL)
    try:
        if is_quiet() or not sys.stderr.isatty():  # show its progress bars only in a terminal
            with silent():
                yield
        else:
            yield
    except SgloraError:
        raise
    except Exception as error:
        cause: BaseException = error  # a storage backend raises its own error, caused by one of the HTTP library
        while not isinstance(cause, HfHubHTTPError) and cause.__cause__:
            cause = cause.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise refusal(cause, reference, "push") from None
        raise Unavailable(f"{reference} cannot be pushed: {reason_of(cause)}", "run the command again") from None
    finally:
        hub_logging.set_verbosity(verbosity)
