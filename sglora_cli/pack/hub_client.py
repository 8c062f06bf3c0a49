"""Requests to the Hugging Face hub: list the files of a repository, and turn failures into errors with hints.

The package huggingface_hub sends all requests and reads the user's token. It is imported on first use.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sglora_cli.errors import BadFile, SgloraError, Unavailable, UnknownName
from sglora_cli.files.escape import shell_word
from sglora_cli.files.untrusted import entry_fault
from sglora_cli.network import hub_unreachable
from sglora_cli.pack.archive import SUFFIX
from sglora_cli.pack.origin import Reference
from sglora_cli.system.transfer import Pace

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_SECONDS = 30.0
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
"""Error numbers of the disk, never of a connection."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    name: str
    bytes: int | None
    """None if the hub does not report it."""
    sha256: str
    """"" if the hub does not report it, as for small files."""


@dataclass(frozen=True)
class Listing:
    """The top folder of a repository at one commit."""

    reference: Reference
    commit: str
    """ "" for a repository without a commit."""
    files: Mapping[str, RemoteFile]
    private: bool

    def archive(self) -> RemoteFile:
        """Return the pack's archive.

        Raises BadFile if there is none, or if there are several and none is named after the repository.
        """
        names = sorted(name for name in self.files if name.endswith(SUFFIX))
        if not names:
            raise BadFile(
                f"{self.reference} has no pack: no file in it ends with {SUFFIX}",
                "check the name, or ask its owner to run `sglora pack push PACK hf:OWNER/NAME`",
            )
        own = f"{self.reference.name}{SUFFIX}"
        if len(names) > 1 and own not in names:
            repository, revision = self.reference.repository, self.commit
            raise BadFile(
                f"{self.reference} has several packs, but none is named {own}: {', '.join(names[:5])}",
                f"hf download {repository} {shell_word(names[0])} --revision {revision} --local-dir . "
                f"&& sglora pack import {shell_word(names[0])}",
            )
        return self.files[own if own in names else names[0]]


def check_network(reference: Reference, verb: str = "pull") -> None:
    """Raise Unavailable if the hub cannot be used."""
    if reason := hub_unreachable():
        setting = reason.removesuffix(" is set")
        first = f"unset {setting}" if setting != reason else "connect to the network"
        again = f"sglora pack {verb} {'PACK ' * (verb == 'push')}{reference}"
        raise Unavailable(f"{reference} cannot be {verb}ed: {reason}", f"{first}, then: {again}")


def api() -> HfApi:
    from huggingface_hub import HfApi, constants

    return HfApi(endpoint=constants.ENDPOINT, library_name="sglora")


def listing_of(reference: Reference, verb: str = "pull") -> Listing:
    """List the files of a repository and resolve the revision to a commit. Raises the errors of `pull`."""
    check_network(reference, verb)
    with requests(reference, verb):
        info = api().model_info(
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
    """Return size and SHA-256 of a file, or None and "" if the hub does not report them."""
    sha256 = lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", "")
    known = type(size) is int and size >= 0
    return size if known else None, sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else ""


class BrokenOff(Unavailable):
    """A connection failed. A new connection may succeed."""


class Counted:
    """The file to which huggingface_hub downloads. It shows progress and rejects data beyond the announced size."""

    def __init__(self, file: BinaryIO, limit: int, advance: Any) -> None:
        self.file, self._limit, self._advance = file, limit, advance
        self._pace = Pace()

    def write(self, data: bytes) -> int:
        if self.file.tell() + len(data) > self._limit:
            raise BadFile(f"the hub sent more than the announced {self._limit} bytes", "run the command again")
        self._advance(len(data), "")
        written = self.file.write(data)
        self._pace.received(len(data))
        return written

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def truncate(self) -> int:
        return self.file.truncate()

    def flush(self) -> None:
        self.file.flush()


# Errors of requests


@contextmanager
def requests(reference: Reference, verb: str, output: Counted | None = None) -> Iterator[None]:
    """Convert errors of huggingface_hub in this block to errors with hints, and hide its own output.

    output: the downloaded file, which the next attempt resumes.
    """
    from huggingface_hub.errors import HfHubHTTPError

    # Connection errors are those of its HTTP library, which is requests, httpx or httpx2.
    network_errors: tuple[type[Exception], ...] = (
        OSError,
        *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
    )
    try:
        with silent():
            yield
    except SgloraError:
        raise
    except HfHubHTTPError as error:
        raise refusal(error, reference, verb) from None
    except (AttributeError, KeyError, TypeError, ValueError):  # a response that is not from the hub
        raise _no_hub(reference, verb) from None
    except network_errors as error:
        if getattr(error, "errno", None) in DISK:
            raise
        raise _broken_off(error, reference, verb, output) from None


@contextmanager
def silent() -> Iterator[None]:
    """Hide the warnings of huggingface_hub, which contain signed URLs, and its progress bars beside our own."""
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


def refusal(error: Any, reference: Reference, verb: str) -> SgloraError:
    """Return the error to raise for an HTTP error of the hub."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = getattr(error.response, "status_code", 0)
    if isinstance(error, RevisionNotFoundError):
        short = reference.is_commit and not _FULL_COMMIT.fullmatch(reference.revision)
        hint = "write all 40 digits of the commit" if short else f"omit the revision: sglora pack {verb} hf:"
        return UnknownName(
            f"hf:{reference.repository} has no revision {reference.revision!r}",
            hint if short else hint + reference.repository,
        )
    if isinstance(error, GatedRepoError):
        return Unavailable(
            f"{reference} is gated: its owner decides who may read it",
            "request access on its page, then log in: hf auth login",
        )
    if status == 401 and get_token() and not isinstance(error, RepositoryNotFoundError):
        return Unavailable("the hub rejected your token", "log in again: hf auth login, or correct HF_TOKEN")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        hint = "log in (hf auth login, or set HF_TOKEN)" if not get_token() else "check your account: hf auth whoami"
        return UnknownName(
            f"{reference} does not exist on the hub, or it is private", f"check the name; if it is private, {hint}"
        )
    if status in (401, 403):
        may = "write to" if verb == "push" else "read"
        return Unavailable(
            f"your token cannot {may} {reference} ({status})" if get_token() else f"{reference} needs a token",
            f"log in with a token that can {may} it: hf auth login, or set HF_TOKEN",
        )
    if status in (409, 412) and verb == "push":
        return Unavailable(f"somebody else changed {reference} in the meantime ({status})", "run the command again")
    if status == 429:
        return Unavailable("the hub received too many requests (429)", "wait a few minutes, then run the command again")
    return Unavailable(f"{reference} cannot be {verb}ed: the hub returned {status}", "run the command again later")


def _broken_off(error: Exception, reference: Reference, verb: str, output: Counted | None) -> BrokenOff:
    hint = "run the command again"
    if output:
        output.flush()
        hint = f"run the command again; {resumes(Path(output.file.name))}"
    return BrokenOff(f"{reference} cannot be {verb}ed: {reason_of(error)}", hint)


def resumes(part: Path) -> str:
    return f"the download resumes from byte {part.stat().st_size if part.exists() else 0}"


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's message, or only its type if the message may contain the token."""
    from huggingface_hub import get_token

    text = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
    hidden = "Bearer" in text or ((token := get_token()) and token in text)
    return type(error).__name__ if hidden else text


def _no_hub(reference: Reference, verb: str) -> Unavailable:
    from huggingface_hub import constants

    return Unavailable(
        f"{reference} cannot be {verb}ed: {constants.ENDPOINT} did not answer as a Hugging Face hub does",
        "correct or unset HF_ENDPOINT, or run the command again later",
    )
