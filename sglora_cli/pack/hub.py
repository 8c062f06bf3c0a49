"""Packs from and to the Hugging Face hub.

A pack is one archive, NAME.sglora.zip, in a model repository, with its signature in NAME.sglora.zip.sig if somebody
signed it. A pull downloads the archive into the user cache and imports it with the checks of `archive.py`. The part of
an interrupted download stays there, and the next pull requests the rest. huggingface_hub sends all requests and finds
the user's token; it is imported when it is needed.
"""

from __future__ import annotations

import errno
import logging
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from sglora_cli.errors import BadFile, Mismatch, SgloraError, Unavailable, UnknownName, UsageError, unwritable
from sglora_cli.files.atomic import put_file, scratch_folder, write_bytes
from sglora_cli.files.hashes import data_hash, file_hash
from sglora_cli.files.untrusted import entry_fault
from sglora_cli.network import hub_unreachable
from sglora_cli.pack.archive import (
    ENTRY_LIMIT,
    NAMESPACE,
    SIGNATURE_SUFFIX,
    SUFFIX,
    TOTAL_LIMIT,
    check_absent,
    check_name,
    export_pack,
    import_pack,
    signed,
)
from sglora_cli.pack.card import hub_card
from sglora_cli.pack.library import Library, PackLocation
from sglora_cli.pack.origin import Origin, Reference, origins, remember
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.host import Host
from sglora_cli.system import cache
from sglora_cli.system.hardware import free_disk, nearest_existing
from sglora_cli.system.locks import locked
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import is_quiet, remark, size, working

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
_ARCHIVE_LIMIT = TOTAL_LIMIT + (ENTRY_LIMIT << 10)
"""Bytes of an archive: its files are stored or compressed, and each entry has a header."""
_SIGNATURE_LIMIT = 1 << 16
_SECONDS = 30.0
_TRIES, _PAUSE_SECONDS = 3, 1.0
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    name: str
    bytes: int | None
    """None if the hub does not say."""
    sha256: str
    """"" if the hub does not say, as for small files."""


@dataclass(frozen=True)
class Listing:
    """The top folder of a repository at one commit."""

    reference: Reference
    commit: str
    """ "" for a repository without a commit."""
    files: Mapping[str, RemoteFile]
    private: bool

    def archive(self) -> RemoteFile:
        """The pack's archive. Raises BadFile if there is none, or more than one and none has the repository's name."""
        names = sorted(name for name in self.files if name.endswith(SUFFIX))
        if not names:
            raise BadFile(
                f"{self.reference} has no pack: no file in it ends with {SUFFIX}",
                "a pack gets there by `sglora pack push`: ask its owner, or check the name",
            )
        own = f"{self.reference.name}{SUFFIX}"
        if len(names) > 1 and own not in names:
            repository, revision = self.reference.repository, self.commit
            raise BadFile(
                f"{self.reference} has several packs and none is {own}: {', '.join(names[:5])}",
                f"hf download {repository} {names[0]} --revision {revision} --local-dir . "
                f"&& sglora pack import {names[0]}",
            )
        return self.files[own if own in names else names[0]]


@dataclass(frozen=True)
class PulledPack:
    """A pack of the hub that is on this machine now."""

    pack: Pack
    origin: Origin
    was_here: bool
    """Whether it was here before, so that nothing was imported."""
    signed_by: str | None
    warnings: tuple[str, ...]


def local_name(host: Host, name: str) -> str:
    """The name here of the pack that hf:OWNER/NAME means, which is pulled if it is not here.

    A pulled pack that is here is used without a request to the hub. A pack that is pulled gets a name that is free: its
    own, OWNER-NAME, or OWNER-NAME with the beginning of its commit. Raises as `pull`.
    """
    reference = Reference.parse(name)
    if location := Library(host.recipe_folders).pulled(reference):
        return location.name
    return _pull(host, reference, any_name=True).pack.folder.name


def pull(
    host: Host, reference: Reference, name: str = "", force: bool = False, signers: Path | None = None
) -> PulledPack:
    """Download a pack and import it, as `name` or under its own name. With `force` it replaces one of that name.

    Nothing is downloaded if its archive was imported before and the pack is unchanged; with `signers`, a file as for
    `archive.signed`, it is downloaded and its signature is checked in any case. Raises Unavailable (no network, no
    access, no room), UnknownName (no such repository or revision), BadFile (no pack, damaged, not signed by any of
    `signers`), UsageError (the name is taken or invalid).
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
    listing = _listing(reference)
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
    with locked(folder, place=lock):  # two processes would both append to the part
        here = None if force else _same(library, origin, name)  # another process may have pulled it
        if here and not signers:
            return _recorded(here, origin, None)
        remark(f"pulling    {origin.short}: {file.name}, {_size(file)}")
        path = _downloaded(listing, file, folder)
        with _labelled(folder, reference):
            who, copy = None, None
            if signers:
                signature = _signature(listing, file, folder)
                with signed(path, signature, signers) as checked:
                    who, copy = checked.by, checked.copy
                    if here:
                        shutil.rmtree(folder, ignore_errors=True)
                        return _recorded(here, origin, who)
                    imported = _imported(host, path, name, force, copy, origin)
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
    """The pack here, of that name if one is given, that came from the same archive."""
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
    """A name for a pack that nobody named, under which no pack is here: it must neither replace nor hide one."""
    reference = listing.reference
    own = file.name.removesuffix(SUFFIX)
    longer = f"{reference.owner}-{reference.name}"
    for name in (own, longer):
        with suppress(UsageError):
            check_name(name)
            if name not in {location.name for location in library.packs()}:
                check_absent(name)
                return name
    return f"{longer}-{listing.commit[:12]}"


def _imported(host: Host, path: Path, name: str, force: bool, copy: Path | None, origin: Origin) -> Any:
    """Import the archive. Raises as `import_pack`; an archive that is no pack is removed, for it stays what it is."""
    try:
        return import_pack(host, path, name, force, copy, origin)
    except BadFile as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        other = f"sglora pack pull hf:{origin.repository}@REVISION"
        raise BadFile(error.message, f"the hub has it like this: tell its owner, or try {other}") from None
    except Unavailable as error:
        hint = error.hint or "make room there, or move the user folders with SGLORA_HOME"
        raise Unavailable(error.message, f"{hint}; the download is kept for the next pull") from None


@contextmanager
def _labelled(folder: Path, reference: Reference) -> Iterator[None]:
    """Errors of the block name files as the user knows them, and not by their copies in the cache."""
    try:
        yield
    except SgloraError as error:
        raise type(error)(error.message.replace(f"{folder}/", f"{reference}/"), error.hint) from None


# Requests


def _check_network(reference: Reference, verb: str = "pull") -> None:
    """Raises Unavailable if the hub cannot be used."""
    if reason := hub_unreachable():
        setting = reason.removesuffix(" is set")
        first = f"unset {setting}" if setting != reason else "connect to the network"
        again = f"sglora pack {verb} {'PACK ' * (verb == 'push')}{reference}"
        raise Unavailable(f"{reference} cannot be {verb}ed: {reason}", f"{first}, then: {again}")


def _api() -> HfApi:
    from huggingface_hub import HfApi, constants

    return HfApi(endpoint=constants.ENDPOINT, library_name="sglora")


def _listing(reference: Reference, verb: str = "pull") -> Listing:
    """The files of a repository and the commit that the revision means. Raises as `pull`."""
    _check_network(reference, verb)
    with _requests(reference, verb):
        info = _api().model_info(
            reference.repository, revision=reference.revision, files_metadata=True, timeout=_SECONDS
        )
        siblings = [(one.rfilename, one.size, one.lfs) for one in info.siblings or ()]
        found = [RemoteFile(str(name), *_facts(size, lfs)) for name, size, lfs in siblings]
        commit = str(info.sha or "")
    if not _FULL_COMMIT.fullmatch(commit):
        raise _no_hub(reference, verb)
    files = {file.name: file for file in found if "/" not in file.name and not entry_fault(file.name)}
    return Listing(reference, commit, files, bool(info.private))


def _facts(size: Any, lfs: Any) -> tuple[int | None, str]:
    """Size and SHA-256 of a file, where the hub gives them."""
    sha256 = lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", "")
    known = type(size) is int and size >= 0
    return size if known else None, sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else ""


def _downloaded(listing: Listing, file: RemoteFile, folder: Path, limit: int = _ARCHIVE_LIMIT) -> Path:
    """The file in a folder, downloaded from where an earlier try ended. Raises Unavailable, or BadFile if it is damaged
    or has more than `limit` bytes."""
    reference, path = listing.reference, folder / file.name
    if path.is_file():
        return path
    part = path.with_name(f"{file.name}.part")
    if file.bytes is not None and file.bytes > limit:
        raise BadFile(f"{reference}: {file.name} has {file.bytes} bytes, more than {limit}", "ask its owner")
    start = part.stat().st_size if part.is_file() else 0
    if file.bytes is not None and start > file.bytes:
        part.unlink()
        start = 0
    _check_room(file, start)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as output, working(f"{file.name}, bytes", (file.bytes or 0) - start) as advance:
            _receive(listing, file, _Counted(output, limit if file.bytes is None else file.bytes, advance), start)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise unwritable(f"cannot write {part}", error, f"make room there; {_resumes(part)}") from None
    if file.sha256 and (digest := file_hash(part)) != file.sha256:
        part.unlink()
        raise BadFile(
            f"{reference}: {file.name} arrived damaged: its SHA-256 is {digest}, the hub names {file.sha256}",
            f"it was removed: run `sglora pack pull {reference}` again",
        )
    put_file(part, path)
    return path


def _check_room(file: RemoteFile, start: int) -> None:
    """Raises Unavailable unless the archive and the pack in it fit on the disk."""
    needed, there = 2 * (file.bytes or 0) - start, nearest_existing(cache_folder())
    if needed > (free := free_disk(there)):
        raise Unavailable(
            f"{file.name} needs {needed} bytes to be downloaded and imported, {there} has {free} left",
            "make room there, or move the user folders with SGLORA_HOME",
        )


class _BrokenOff(Unavailable):
    """A connection failed, and another one may not."""


def _receive(listing: Listing, file: RemoteFile, output: _Counted, start: int) -> None:
    """Request the rest of a file until it is complete, or _TRIES requests in a row brought nothing."""
    vain, restarted = 0, False
    while start != file.bytes:
        try:
            _receive_once(listing, file, output, start)
            return
        except _BrokenOff as error:
            vain = 0 if output.tell() > start else vain + 1
            start = output.tell()
            if vain == _TRIES:
                raise Unavailable(error.message, error.hint) from None
            time.sleep(_PAUSE_SECONDS * vain)
        except BadFile:  # a server that ignores ranges sends the file from its beginning
            if restarted:
                raise
            output.seek(0)
            output.truncate()
            start, restarted = 0, True


def _receive_once(listing: Listing, file: RemoteFile, output: _Counted, start: int) -> None:
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    reference = listing.reference
    url = f"{constants.ENDPOINT}/{reference.repository}/resolve/{listing.commit}/{quote(file.name)}"
    with _requests(reference, "pull", output):
        headers = {**build_hf_headers(library_name="sglora"), "Accept-Encoding": "identity"}  # ranges count plain bytes
        http_get(url, output, resume_size=start, headers=headers, expected_size=file.bytes)  # type: ignore[arg-type]


class _Counted:
    """A file that is written by huggingface_hub: progress is displayed, and no more bytes than announced are taken."""

    def __init__(self, file: BinaryIO, limit: int, advance: Any) -> None:
        self.file, self._limit, self._advance = file, limit, advance

    def write(self, data: bytes) -> int:
        if self.file.tell() + len(data) > self._limit:
            raise BadFile(f"the hub sends more than the {self._limit} bytes that it announced", "run it again")
        self._advance(len(data), "")
        return self.file.write(data)

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def truncate(self) -> int:
        return self.file.truncate()

    def flush(self) -> None:
        self.file.flush()


def _signature(listing: Listing, file: RemoteFile, folder: Path) -> Path:
    """The signature of the archive, downloaded. Raises BadFile if there is none."""
    name = f"{file.name}{SIGNATURE_SUFFIX}"
    if name not in listing.files:
        raise BadFile(
            f"{listing.reference} has no {name}, so nothing says who signed the pack",
            "ask its owner to sign it and push it again; nothing was imported",
        )
    path = folder / name
    path.unlink(missing_ok=True)  # its bytes have no hash that could tell it from an older one
    path.with_name(f"{name}.part").unlink(missing_ok=True)
    return _downloaded(listing, listing.files[name], folder, _SIGNATURE_LIMIT)


# Errors of requests


@contextmanager
def _requests(reference: Reference, verb: str, output: _Counted | None = None) -> Iterator[None]:
    """Requests of huggingface_hub, whose errors become errors for the user and whose notes are not printed.

    output: the file that is downloaded, which the next try resumes.
    """
    from huggingface_hub.errors import HfHubHTTPError

    # What connections raise depends on its HTTP library, which has been requests, httpx and httpx2.
    network_errors: tuple[type[Exception], ...] = (
        OSError,
        *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
    )
    try:
        with _silent():
            yield
    except SgloraError:
        raise
    except HfHubHTTPError as error:
        raise _refusal(error, reference, verb) from None
    except (AttributeError, KeyError, TypeError, ValueError):  # an answer that is not the hub's
        raise _no_hub(reference, verb) from None
    except network_errors as error:
        if getattr(error, "errno", None) in _DISK:
            raise
        raise _broken_off(error, reference, verb, output) from None


@contextmanager
def _silent() -> Iterator[None]:
    """huggingface_hub prints no warnings, which name signed addresses, and shows no progress beside ours."""
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled as disabled  # type: ignore[attr-defined]
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars  # type: ignore[attr-defined]
    from huggingface_hub.utils import logging as hub_logging

    verbosity = hub_logging.get_verbosity()
    ours = not disabled() and constants.HF_HUB_DISABLE_PROGRESS_BARS is None
    hub_logging.set_verbosity(logging.CRITICAL)
    if ours:
        disable_progress_bars()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if ours:
            enable_progress_bars()


def _refusal(error: Any, reference: Reference, verb: str) -> SgloraError:
    """The error for an answer of the hub that is not a success."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = getattr(error.response, "status_code", 0)
    if isinstance(error, RevisionNotFoundError):
        short = reference.is_commit and not _FULL_COMMIT.fullmatch(reference.revision)
        hint = "write the commit with all 40 digits" if short else f"leave it out: sglora pack {verb} hf:"
        return UnknownName(
            f"hf:{reference.repository} has no revision {reference.revision!r}",
            hint if short else hint + reference.repository,
        )
    if isinstance(error, GatedRepoError):
        return Unavailable(
            f"{reference} is gated: its owner decides who may read it",
            "ask for access on its page, then log in: hf auth login",
        )
    if status == 401 and get_token() and not isinstance(error, RepositoryNotFoundError):
        return Unavailable("the hub does not accept your token", "log in again: hf auth login, or correct HF_TOKEN")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        hint = "log in (hf auth login, or HF_TOKEN)" if not get_token() else "see who you are: hf auth whoami"
        return UnknownName(
            f"{reference} does not exist on the hub, or it is private", f"check the name; for a private one {hint}"
        )
    if status in (401, 403):
        may = "write to" if verb == "push" else "read"
        return Unavailable(
            f"your token may not {may} {reference} ({status})" if get_token() else f"{reference} needs a token",
            f"log in with a token that may {may} it: hf auth login, or set HF_TOKEN",
        )
    if status in (409, 412) and verb == "push":
        return Unavailable(f"{reference} was changed by somebody else meanwhile ({status})", "run it again")
    if status == 429:
        return Unavailable("the hub refuses further requests for now (429)", "wait some minutes, then run it again")
    return Unavailable(f"{reference} cannot be {verb}ed: the hub answers {status}", "run it again later")


def _broken_off(error: Exception, reference: Reference, verb: str, output: _Counted | None) -> _BrokenOff:
    hint = "run it again"
    if output:
        output.flush()
        hint = f"run it again: {_resumes(Path(output.file.name))}"
    return _BrokenOff(f"{reference} cannot be {verb}ed: {_reason(error)}", hint)


def _resumes(part: Path) -> str:
    return f"the download resumes from byte {part.stat().st_size if part.exists() else 0}"


def _reason(error: BaseException) -> str:
    """The first line of an error's message, which must not show the token."""
    from huggingface_hub import get_token

    text = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
    hidden = "Bearer" in text or ((token := get_token()) and token in text)
    return type(error).__name__ if hidden else text


def _no_hub(reference: Reference, verb: str) -> Unavailable:
    from huggingface_hub import constants

    return Unavailable(
        f"{reference} cannot be {verb}ed: the answer of {constants.ENDPOINT} is not one of the hub",
        "correct or unset HF_ENDPOINT, or run it again later",
    )


# Uploads


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
    program = shutil.which("ssh-keygen")
    if program is None:
        raise Unavailable("ssh-keygen is not installed, so no signature can be checked", "install OpenSSH's client")
    if not signature.is_file():
        raise BadFile.missing(signature)
    copy = folder / f"{archive.name}{SIGNATURE_SUFFIX}"
    with signature.open("rb") as file:
        write_bytes(copy, file.read(_SIGNATURE_LIMIT))
    command = [program, "-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(copy)]
    with archive.open("rb") as content:
        answer = subprocess.run(command, stdin=content, capture_output=True, check=False)
    if answer.returncode:
        raise BadFile(
            f"{signature} does not sign pack {name!r} as it is now",
            f"sglora pack export {name} -o {archive.name} --force && "
            f"ssh-keygen -Y sign -n {NAMESPACE} -f KEY {archive.name}",
        )
    return copy


def repository_state(upload: Upload, reference: Reference, private: bool = False) -> Listing | None:
    """The repository that a push changes; None if it does not exist yet.

    Raises Unavailable (no network, no token), UsageError for a revision, a repository that holds another pack, or one
    that is public although `private` is wanted.
    """
    if str(reference) != f"hf:{reference.repository}":
        raise UsageError(f"{reference} names a revision, and a push makes a new one", f"try hf:{reference.repository}")
    _check_network(reference, "push")
    from huggingface_hub import get_token

    if not get_token():
        raise Unavailable("no token of the Hugging Face hub is on this machine", "hf auth login, or set HF_TOKEN")
    try:
        listing = _listing(reference, "push")
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

    api = _api()
    operations: list[Any] = [CommitOperationAdd(name, str(path)) for name, path in upload.files.items()]
    stale = {f"{name}{SIGNATURE_SUFFIX}" for name in upload.files} - set(upload.files)
    if there:
        operations += [CommitOperationDelete(name) for name in sorted(stale & set(there.files))]
    with _uploads(reference):
        if not there:
            api.create_repo(reference.repository, private=private, exist_ok=True)
        done = api.create_commit(
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
            with _silent():
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
            raise _refusal(cause, reference, "push") from None
        raise Unavailable(f"{reference} cannot be pushed: {_reason(cause)}", "run it again") from None
    finally:
        hub_logging.set_verbosity(verbosity)
