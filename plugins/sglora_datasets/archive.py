"""Archives -> folders, all or nothing. The archives are those a checksum or publisher vouches for; they are still
read strictly: plain files only, no name that leads out, never more than the archive says."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sglora_cli.api import BadFile, Unavailable, entry_fault, scratch_folder, sync_tree

_CHUNK = 1 << 20
AT_ONCE = 64 << 20
_FREE, _RATIO = 1 << 30, 20
"""An archive may unpack to a gigabyte, or to so many times its size: photos hardly shrink."""
_BROKEN: tuple[type[Exception], ...] = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)
_BROKEN += (ValueError, NotImplementedError, OverflowError, RuntimeError)


def unpacked(archive: Path, root: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Put the folders of an archive (.zip, .tar.gz, .tgz) into root, file by file where a folder is there already.

    `wanted` chooses among the names. Raises BadFile, naming the entry, for a link, a device or a name that leads out
    of the archive; Unavailable if there is no room. Then root is as it was.
    """
    entries = _zip_entries if archive.suffix == ".zip" else _tar_entries
    try:
        left = max(_FREE, _RATIO * archive.stat().st_size)
        with scratch_folder(root / "unpacking") as draft:
            for name, size, content in entries(archive):
                left -= size
                if left < 0:
                    raise BadFile(f"{archive} unpacks to far more than photos would", "remove it, then fetch it again")
                if wanted(name):
                    target = draft / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("xb") as file:
                        shutil.copyfileobj(content, file, _CHUNK)
            sync_tree(draft)  # the archive is removed next
            _moved(draft, root)
    except _BROKEN as error:
        raise BadFile(f"{archive} is not a whole archive: {error}", "remove it, then fetch it again") from None
    except OSError as error:
        raise Unavailable(
            f"cannot unpack {archive}: {error.strerror or error}", "mend that, then run it again"
        ) from None


class Bounded:
    """A file for `tarfile`, which would read a header of whatever size it claims into memory."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= AT_ONCE:
            raise tarfile.ReadError(f"a part claims {size} bytes")
        data: bytes = self._file.read(size)
        return data


def plain(file: Any) -> tarfile.TarFile:
    """A plain tar, none of whose headers is read into memory whole if it is large."""
    return tarfile.open(fileobj=Bounded(file), mode="r:")  # type: ignore[call-overload]


def _moved(draft: Path, root: Path) -> None:
    """Move what is in the draft into root: a whole folder at once where there is none yet."""
    for source in sorted(draft.iterdir()):
        target = root / source.name
        if source.is_dir() and target.is_dir():
            _moved(source, target)
        else:
            os.replace(source, target)


def _tar_entries(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    with gzip.open(archive) as file, plain(file) as tar:
        last = 0
        for member in tar:
            if tar.offset <= last:  # a negative size: it would be read again and again
                raise BadFile(f"{archive}: entry {member.name[:100]!r} has a size of {member.size}")
            last = tar.offset
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise BadFile(f"{archive}: entry {member.name[:100]!r} is a link or a device, not a file")
            content = tar.extractfile(member)
            if content is not None:
                yield _checked(member.name, archive), member.size, content


def _zip_entries(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    with zipfile.ZipFile(archive) as zipped:
        for entry in zipped.infolist():
            if entry.is_dir():
                continue
            name = _checked(entry.orig_filename, archive, entry.external_attr >> 16)  # `filename` is cut at a NUL
            with zipped.open(entry) as content:
                yield name, entry.file_size, content


def _checked(name: str, archive: Path, mode: int = 0) -> str:
    """The name without `./` and `//`. Raises BadFile for what may not be unpacked."""
    plain_name = str(PurePosixPath(name))
    if fault := entry_fault(plain_name, mode):
        raise BadFile(f"{archive}: entry {name[:100]!r} {fault}")
    return plain_name
