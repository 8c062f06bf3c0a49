"""A pack as one commit of a model repository on the Hugging Face hub: its archive, signature and model card."""

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
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import is_quiet

CARD = "README.md"


@dataclass(frozen=True)
class Upload:
    """The files that a push uploads: names on the hub, and their copies here."""

    pack: Pack
    files: Mapping[str, Path]

    def sizes(self) -> dict[str, int]:
        return {name: path.stat().st_size for name, path in self.files.items()}


@dataclass(frozen=True)
class Pushed:
    """What a push made."""

    commit: str
    url: str


@contextmanager
def upload_of(pack: Pack, reference: Reference, licence: str = "", signature: Path | None = None) -> Iterator[Upload]:
    """Write what a push of a pack uploads into a folder that exists during the block.

    licence: its identifier on the hub.  signature: of the archive that `export_pack` writes; None if it is not signed.
    Raises BadFile for a damaged pack or a signature of other bytes, UsageError for an invalid licence.
    """
    if licence and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,60}", licence):
        raise UsageError(f"{licence[:100]!r} is not a licence of the hub", "write its identifier, as in apache-2.0")
    with scratch_folder(cache_folder() / "downloads" / "push") as folder:
        archive, card = folder / f"{pack.name}{SUFFIX}", folder / CARD
        export_pack(pack, archive)
        files = {archive.name: archive, CARD: card}
        if signature:
            files[f"{archive.name}{SIGNATURE_SUFFIX}"] = _checked_signature(archive, signature, folder, pack.name)
        write_bytes(card, hub_card(pack, str(reference), licence, bool(signature)).encode())
        yield Upload(pack, files)


def _checked_signature(archive: Path, signature: Path, folder: Path, name: str) -> Path:
    """A copy of the signature. Raises BadFile unless it is one of the archive."""
    if not signature.is_file():
        raise BadFile.missing(signature)
    copy = folder / f"{archive.name}{SIGNATURE_SUFFIX}"
    with signature.open("rb") as file:
        write_bytes(copy, file.read(SIGNATURE_LIMIT))
    if keygen(archive, "check-novalidate", "-n", NAMESPACE, "-s", str(copy)).returncode:
        raise BadFile(
            f"{signature} does not sign pack {name!r} as it is now",
            f"sglora pack export {shell_word(name)} -o {shell_word(archive.name)} --force && "
            f"ssh-keygen -Y sign -n {NAMESPACE} -f KEY {shell_word(archive.name)}",
        )
    return copy


def repository_state(upload: Upload, reference: Reference, private: bool = False) -> Listing | None:
    """The repository that a push changes; None if it does not exist yet.

    Raises Unavailable (no network, no token), UsageError for a revision, a repository that holds another pack, or one
    that is public although `private` is wanted.
    """
    if str(reference) != f"hf:{reference.repository}":
        raise UsageError(f"{reference} names a revision, and a push makes a new one", f"try hf:{reference.repository}")
    check_network(reference, "push")
    from huggingface_hub import get_token

    if not get_token():
        raise Unavailable("no token of the Hugging Face hub is on this machine", "hf auth login, or set HF_TOKEN")
    try:
        listing = listing_of(reference, "push")
    except UnknownName:
        return None
    if others := sorted(name for name in listing.files if name.endswith(SUFFIX) and name not in upload.files):
        raise Mismatch(
            f"{reference} holds another pack: {others[0]}", "push to another repository, or delete that file on the hub"
        )
    if private and not listing.private:
        raise UsageError(f"{reference} exists and is public", "change that in its settings on the hub, or leave it out")
    return listing


def push(upload: Upload, reference: Reference, there: Listing | None, private: bool = False) -> Pushed:
    """Upload a pack in one commit; a repository that is not `there` is created first. Raises Unavailable.

    A signature on the hub that the upload lacks is deleted: it would be one of other bytes.
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
    """Requests of an upload. Its storage backends raise errors of their own, each with the HTTP library's as cause."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import logging as hub_logging

    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.CRITICAL)
    try:
        if is_quiet() or not sys.stderr.isatty():  # its bars are for a terminal
            with silent():
                yield
        else:
            yield
    except SgloraError:
        raise
    except Exception as error:
        cause: BaseException = error
        while not isinstance(cause, HfHubHTTPError) and cause.__cause__:
            cause = cause.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise refusal(cause, reference, "push") from None
        raise Unavailable(f"{reference} cannot be pushed: {reason_of(cause)}", "run it again") from None
    finally:
        hub_logging.set_verbosity(verbosity)
