"""Unpack archives atomically. Although checksums or publishers vouch for the archives, reading is strict: plain files
only, no names that lead outside, and never more bytes than the archive declares."""

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
_FREE, _RATIO, _ENTRY = 1 << 30, 20, 512
"""Limits of the unpacked size: a gigabyte, or a multiple of the archive's size, because photos hardly compress. Each
entry counts as some bytes more, so that the number of entries is limited, too."""
_BROKEN: tuple[type[Exception], ...] = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)
_BROKEN += (ValueError, NotImplementedError, OverflowError, RuntimeError)


def unpacked(archive: Path, root: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Unpack an archive (.zip, .tar.gz, .tgz) into root. Folders that exist already are merged file by file.

    `wanted` selects entries by name. Raises BadFile with the entry for a link, a device or a name that leads outside
    the archive, and Unavailable if there is no space. In these cases root is unchanged.
    """
    entries = _zip_entries if archive.suffix == ".zip" else _tar_entries
    try:
        left = unpacked_limit(archive)
        with scratch_folder(root / "unpacking") as draft:
            for name, size, content in entries(archive):
                left -= size + _ENTRY
                if left < 0:
                    raise BadFile(
                        f"{archive} would unpack to far more data than expected", "delete it, then download it again"
                    )
                if content is not None and wanted(name):
                    target = draft / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("xb") as file:
                        shutil.copyfileobj(content, file, _CHUNK)
            sync_tree(draft)  # the archive is deleted next
            _moved(draft, root)
    except _BROKEN as error:
        raise BadFile(f"{archive} is incomplete or damaged: {error}", "delete it, then download it again") from None
    except OSError as error:
        raise Unavailable(
            f"cannot unpack {archive}: {error.strerror or error}", "fix this, then run the command again"
        ) from None


def unpacked_limit(archive: Path) -> int:
    """Return how many bytes an archive may unpack to."""
    return max(_FREE, _RATIO * archive.stat().st_size)


class Bounded:
    """A file wrapper for `tarfile`, which would otherwise read headers of any declared size into memory."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= AT_ONCE:
            raise tarfile.ReadError(f"a header declares {size} bytes")
        data: bytes = self._file.read(size)
        return data


def plain(file: Any) -> tarfile.TarFile:
    """Open an uncompressed tar without ever reading a large header into memory."""
    return tarfile.open(fileobj=Bounded(file), mode="r:")  # type: ignore[call-overload]


def _moved(draft: Path, root: Path) -> None:
    """Move the content of the draft into root. Folders that do not exist yet are moved as one."""
    for source in sorted(draft.iterdir()):
        target = root / source.name
        if source.is_dir() and target.is_dir():
            _moved(source, target)
        else:
            os.replace(source, target)


_Entry = tuple[str, int, IO[bytes] | None]
"""Name, size and content of an entry. A folder has no content."""


def _tar_entries(archive: Path) -> Iterator[_Entry]:
    with gzip.open(archive) as file, plain(file) as tar:
        last = 0
        for member in tar:
            if tar.offset <= last:  # a negative size would be read in an endless loop
                raise BadFile(f"{archive}: entry {member.name[:100]!r} has a size of {member.size}")
            last = tar.offset
            if member.isdir():
                yield member.name, 0, None
                continue
            if not member.isreg() or member.issparse():
                raise BadFile(f"{archive}: entry {member.name[:100]!r} is a link or a device, not a file")
            yield _checked(member.name, archive), member.size, tar.extractfile(member)


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as zipped:
        for entry in zipped.infolist():
            if entry.orig_filename.endswith("/"):  # `is_dir` fails for an empty name
                yield entry.orig_filename, 0, None
                continue
            name = _checked(entry.orig_filename, archive, entry.external_attr >> 16)  # `filename` is cut at a NUL
            with zipped.open(entry) as content:
                yield name, entry.file_size, content


def _checked(name: str, archive: Path, mode: int = 0) -> str:
    """Return the name without `./` and `//`. Raises BadFile for an entry that must not be unpacked."""
    plain_name = str(PurePosixPath(name))
    if fault := entry_fault(plain_name, mode):
        raise BadFile(f"{archive}: entry {name[:100]!r} {fault}")
    return plain_name
