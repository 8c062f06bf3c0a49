"""Requests to the Hugging Face hub: the files of a repository, and what the user can do about each failure.

huggingface_hub sends all requests and finds the user's token; it is imported when it is needed.
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
from sglora_cli.files.untrusted import entry_fault
from sglora_cli.network import hub_unreachable
from sglora_cli.pack.archive import SUFFIX
from sglora_cli.pack.origin import Reference

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_SECONDS = 30.0
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
"""What a disk answers, and no connection."""


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
                "a pack gets there by `sglora pack push PACK hf:OWNER/NAME`: ask its owner, or check the name",
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


def check_network(reference: Reference, verb: str = "pull") -> None:
    """Raises Unavailable if the hub cannot be used."""
    if reason := hub_unreachable():
        setting = reason.removesuffix(" is set")
        first = f"unset {setting}" if setting != reason else "connect to the network"
        again = f"sglora pack {verb} {'PACK ' * (verb == 'push')}{reference}"
        raise Unavailable(f"{reference} cannot be {verb}ed: {reason}", f"{first}, then: {again}")


def api() -> HfApi:
    from huggingface_hub import HfApi, constants

    return HfApi(endpoint=constants.ENDPOINT, library_name="sglora")


def listing_of(reference: Reference, verb: str = "pull") -> Listing:
    """The files of a repository and the commit that the revision means. Raises as `pull`."""
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
    """Size and SHA-256 of a file, where the hub gives them."""
    sha256 = lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", "")
    known = type(size) is int and size >= 0
    return size if known else None, sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else ""


class BrokenOff(Unavailable):
    """A connection failed, and another one may not."""


class Counted:
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


# Errors of requests


@contextmanager
def requests(reference: Reference, verb: str, output: Counted | None = None) -> Iterator[None]:
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
        with silent():
            yield
    except SgloraError:
        raise
    except HfHubHTTPError as error:
        raise refusal(error, reference, verb) from None
    except (AttributeError, KeyError, TypeError, ValueError):  # an answer that is not the hub's
        raise _no_hub(reference, verb) from None
    except network_errors as error:
        if getattr(error, "errno", None) in DISK:
            raise
        raise _broken_off(error, reference, verb, output) from None


@contextmanager
def silent() -> Iterator[None]:
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


def refusal(error: Any, reference: Reference, verb: str) -> SgloraError:
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


def _broken_off(error: Exception, reference: Reference, verb: str, output: Counted | None) -> BrokenOff:
    hint = "run it again"
    if output:
        output.flush()
        hint = f"run it again: {resumes(Path(output.file.name))}"
    return BrokenOff(f"{reference} cannot be {verb}ed: {reason_of(error)}", hint)


def resumes(part: Path) -> str:
    return f"the download resumes from byte {part.stat().st_size if part.exists() else 0}"


def reason_of(error: BaseException) -> str:
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
