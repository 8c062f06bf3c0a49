"""Export and import packs as one file, and verify its signature.

The file is a ZIP archive with a fixed order and fixed dates, so equal packs give equal bytes. An untrusted archive is
checked entry by entry before anything is unpacked. A signature is an OpenSSH signature (`ssh-keygen -Y`) and is
verified before the archive is opened. It belongs to one namespace, so a signature for another purpose is not valid
here. The user's allowed-signers file (ssh-keygen(1)) lists who may sign.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import stat
import subprocess
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from sglora_cli.errors import BadFile, SgloraError, Unavailable, UsageError
from sglora_cli.files.atomic import put_folder, scratch_folder, writing
from sglora_cli.files.escape import shell_word
from sglora_cli.files.tensors import load_tensors
from sglora_cli.files.text import parse_json
from sglora_cli.files.untrusted import check_regular, entry_fault, is_plain
from sglora_cli.pack.content.manifest import MANIFEST, checked_manifest
from sglora_cli.pack.library import Library
from sglora_cli.pack.origin import Origin, remember
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.writer import write_manifest
from sglora_cli.plugin.host import Host
from sglora_cli.system.hardware import free_disk, nearest_existing
from sglora_cli.system.locks import pack_lock
from sglora_cli.system.paths import built_folder, cache_folder

SUFFIX = ".sglora.zip"
ENTRY_LIMIT = 10_000
TOTAL_LIMIT = 16 << 30
"""The most bytes of all files together; a large pack has a few GiB."""
MANIFEST_LIMIT = 16 << 20
RATIO_LIMIT = 200
"""The largest compression ratio; deflate reaches 1032 for zeros."""
RATIO_FROM = 1 << 20
"""Entries smaller than this may have any ratio."""
TOTAL_FROM = 64 << 20
"""Bytes that small entries may unpack to in total, whatever their ratio."""
_CHUNK = 1 << 20
_HINT = "use a file that `sglora pack export` wrote"


@dataclass(frozen=True)
class ImportedPack:
    """A pack that was imported from an archive, and warnings about it."""

    pack: Pack
    warnings: tuple[str, ...]


def export_pack(pack: Pack, path: Path) -> None:
    """Write a pack as one file.

    Raises BadFile if the pack is damaged, UsageError if `path` is inside the pack, Unavailable if it cannot be written.
    """
    # Entries are stored uncompressed: tensors hardly shrink, and the output of deflate depends on its version.
    if path.resolve().is_relative_to(pack.folder.resolve()):
        raise UsageError(f"{path} is inside the pack", "write it elsewhere with -o FILE")
    _check_importable(pack, path)
    pack.check_whole()
    with writing(path) as file, pack.unchanged(), zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted([MANIFEST, *pack.manifest["files"]]):
            source = pack.folder / name
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16  # the same on every system
            entry.file_size = source.stat().st_size
            with source.open("rb") as content, archive.open(entry, "w") as target:
                shutil.copyfileobj(content, target, _CHUNK)


def _check_importable(pack: Pack, path: Path) -> None:
    """Raise Unavailable if the pack's archive would exceed the limits of an import."""
    names = pack.manifest["files"]
    if len(names) >= ENTRY_LIMIT:
        fewer = f"convert the pack to fewer files: sglora pack migrate {shell_word(pack.name)}"
        hint = fewer if pack.format == 1 else "copy the pack's folder instead"
        raise Unavailable(f"{path} would have {len(names) + 1} entries, the limit is {ENTRY_LIMIT}", hint)
    total = sum((pack.folder / name).stat().st_size for name in names if (pack.folder / name).exists())
    if total > TOTAL_LIMIT:
        raise Unavailable(
            f"{path} would unpack to {total} bytes, the limit is {TOTAL_LIMIT}", "copy the pack's folder instead"
        )


def import_pack(
    host: Host,
    path: Path,
    name: str = "",
    force: bool = False,
    content: Path | None = None,
    origin: Origin | None = None,
) -> ImportedPack:
    """Import the pack of an archive into the user's packs, as `name` or under its own name.

    content: a copy of the archive to read instead.  force: replace an existing pack once the new one is complete.
    origin: the place it was pulled from, which is recorded.
    Raises BadFile, naming the entry, for an invalid or incomplete archive; UsageError if a pack of that name exists.
    """
    with _open(path, content or path) as archive:
        entries = _checked_entries(archive, path, (content or path).stat().st_size)
        manifest = _manifest(archive, entries, path)
        name = _checked_name(name, manifest, path)
        target = built_folder() / name
        with pack_lock(target):
            check_absent(name, force)
            _check_space(sum(entry.file_size for entry in entries.values()), target)
            with scratch_folder(target) as folder:
                _unpack(archive, entries, manifest, folder, path)
                _check_readable(folder, path)
                if name != manifest["name"]:
                    write_manifest(folder, {**manifest, "name": name}, manifest["files"])
                if origin:
                    remember(folder, origin)
                put_folder(folder, target)
    return ImportedPack(Pack(target), _warnings(host, name, manifest["backbone"]))


def check_absent(name: str, force: bool = False) -> None:
    """Raise UsageError if a pack of that name exists on this machine, unless it may be replaced."""
    if not force and (target := built_folder() / name).exists():
        raise UsageError(f"pack {name!r} exists in {target}", "pass --name NAME, or --force to replace it")


@contextmanager
def _open(path: Path, content: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive at `path` by its copy `content`. Converts ZIP errors, also from the block, to BadFile."""
    if path.is_dir():
        raise BadFile(f"{path} is a folder, not an archive", "pass the file that `sglora pack export` wrote")
    check_regular(path)
    try:
        with zipfile.ZipFile(content) as archive:
            yield archive
    except FileNotFoundError:
        raise BadFile.missing(path) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise BadFile(f"{path} is not a valid ZIP archive: {error}", "fetch it again") from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # an offset before the start of the file
            raise BadFile(f"{path} is not a valid ZIP archive: invalid offset", "fetch it again") from None
        raise Unavailable(f"cannot unpack {path}: {error.strerror or error}") from error


def _checked_entries(archive: zipfile.ZipFile, path: Path, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by name. Raises BadFile for an entry that is not allowed in a pack.

    size: bytes of the archive.
    """
    entries = archive.infolist()
    if len(entries) > ENTRY_LIMIT:
        raise BadFile(f"{path} has {len(entries)} entries, the limit is {ENTRY_LIMIT}", _HINT)
    total, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if total > TOTAL_LIMIT:
        raise BadFile(f"{path} would unpack to {total} bytes, the limit is {TOTAL_LIMIT}", _HINT)
    if packed > size or total > TOTAL_FROM + RATIO_LIMIT * size:
        raise BadFile(f"{path} has {size} bytes, but would unpack to {total}", _HINT)
    by_name: dict[str, zipfile.ZipInfo] = {}
    folded: dict[str, str] = {}  # files and their folders, by what a file system without cases makes of the name
    for entry in entries:
        name = entry.orig_filename
        if fault := _entry_fault(entry):
            raise BadFile(f"{path}: entry {name[:100]!r} {fault}", _HINT)
        other = folded.setdefault(_folded(name), name)
        if name in by_name or other != name:
            raise BadFile(f"{path}: entries {other!r} and {name!r} are the same file on some systems", _HINT)
        by_name[name] = entry
    for name in by_name:
        for parent in PurePosixPath(name).parents:
            if file := folded.get(_folded(parent.as_posix())):
                raise BadFile(f"{path}: entry {file!r} is both a file and a folder, that of {name!r}", _HINT)
    return by_name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _entry_fault(entry: zipfile.ZipInfo) -> str:
    mode = stat.S_IFDIR if entry.external_attr & 0x10 else entry.external_attr >> 16  # 0x10: MS-DOS flag of a folder
    if fault := entry_fault(entry.orig_filename, mode, "pack"):  # `filename` is already truncated at a NUL
        return fault
    if entry.flag_bits & 0x41:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"uses the unsupported compression method {entry.compress_type}"
    if entry.file_size > RATIO_FROM and entry.file_size > RATIO_LIMIT * entry.compress_size:
        return f"would expand from {entry.compress_size} to {entry.file_size} bytes"
    return ""


def _manifest(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], path: Path) -> dict[str, Any]:
    """Read and check pack.json. Raises BadFile unless it lists exactly the other entries."""
    if MANIFEST not in entries:
        raise BadFile(f"{path} has no {MANIFEST}, so it is not a pack", _HINT)
    if entries[MANIFEST].file_size > MANIFEST_LIMIT:
        raise BadFile(
            f"{path}: {MANIFEST} has {entries[MANIFEST].file_size} bytes, the limit is {MANIFEST_LIMIT}", _HINT
        )
    with archive.open(entries[MANIFEST]) as file:
        data = file.read(MANIFEST_LIMIT + 1)
    manifest = checked_manifest(parse_json(data, f"{path}, {MANIFEST}"), path / MANIFEST)
    listed, present = set(manifest["files"]), set(entries) - {MANIFEST}
    wrong = [f"{name!r} is missing" for name in sorted(listed - present)]
    wrong += [f"{name!r} is not listed in {MANIFEST}" for name in sorted(present - listed)]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise BadFile(f"{path}: " + "; ".join(wrong[:3]) + more, _HINT)
    return manifest


def _checked_name(wanted: str, manifest: dict[str, Any], path: Path) -> str:
    """Return the name of the pack's folder. Raises UsageError if `wanted` is invalid, else BadFile."""
    name: str = wanted or manifest["name"]
    if is_plain(name):
        return name
    check_name(wanted)
    raise BadFile(f"{path}: the pack's name {name[:100]!r} is not a valid folder name", "pass --name NAME")


def check_name(name: str) -> None:
    """Raise UsageError for an invalid pack name. "" stands for the pack's own name."""
    if name and not is_plain(name):
        raise UsageError(
            f"invalid pack name {name[:100]!r}", "use letters, digits and hyphens, and no name that Windows reserves"
        )


def _check_space(needed: int, target: Path) -> None:
    there = nearest_existing(target.parent)
    if needed > (free := free_disk(there)):
        raise Unavailable(f"the pack needs {needed} bytes, but {there} has {free} bytes free", "free some space there")


def _unpack(
    archive: zipfile.ZipFile,
    entries: dict[str, zipfile.ZipInfo],
    manifest: dict[str, Any],
    folder: Path,
    path: Path,
) -> None:
    """Write every entry and compare its hash. The size is measured, because the declared one may be wrong."""
    left = TOTAL_LIMIT
    for name, entry in entries.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as content, target.open("xb") as file:
            digest, size = _copied(content, file, min(left, entry.file_size))  # type: ignore[arg-type]
        if size > entry.file_size or size > left:
            raise BadFile(f"{path}: entry {name!r} is larger than its declared size", _HINT)
        if name != MANIFEST and digest != manifest["files"][name]:
            raise BadFile(f"{path}: the hash of entry {name!r} differs from {MANIFEST}", "fetch it again")
        left -= size


def _copied(content: BinaryIO, file: BinaryIO, limit: int) -> tuple[str, int]:
    """Copy up to `limit` bytes, or just more, and return the SHA-256 and the size of the copied bytes."""
    digest, size = hashlib.sha256(), 0
    while size <= limit and (chunk := content.read(_CHUNK)):
        size += len(chunk)
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest(), size


def _check_readable(folder: Path, path: Path) -> None:
    """Raise BadFile, naming the entry, if the unpacked files are not a valid pack."""
    try:
        pack = Pack(folder)
        for name in pack.manifest["files"]:
            if name.endswith(".safetensors"):
                load_tensors(folder / name)
        pack.check_content()
        from sglora_cli.pack.coverage import load_coverage

        load_coverage(pack)
    except SgloraError as error:
        raise BadFile(f"{path}: " + error.message.replace(f"{folder}/", ""), _HINT) from None


def _warnings(host: Host, name: str, backbone: str) -> tuple[str, ...]:
    warnings = []
    try:
        host.backbones[backbone]
    except SgloraError as error:
        warnings.append(f"its backbone is not available: {error.message}; install the plugin that provides it")
    if Library(host.recipe_folders).has_bundled(name):
        warnings.append(f"it hides the bundled pack {name!r}; `sglora pack remove {name}` restores the bundled one")
    return tuple(warnings)


NAMESPACE = "sglora"
SIGNATURE_SUFFIX = ".sig"
SIGNATURE_LIMIT = 1 << 16
"""The most bytes of a signature; the largest keys need a few thousand."""


@dataclass(frozen=True)
class Signed:
    """The signer of a file, and a copy of the signed bytes."""

    by: str
    copy: Path


@contextmanager
def signed(path: Path, signature: Path, signers: Path) -> Iterator[Signed]:
    """Verify that a signer in the file `signers` signed the file at `path`.

    A private copy is verified, and the block reads that copy, so nobody can change the file in between. Raises BadFile
    if the signature is not valid or a file is missing, Unavailable if ssh-keygen is not installed or there is no space
    for the copy.
    """
    for file in (path, signature, signers):
        if not file.is_file():
            raise BadFile(
                f"{file} is missing or not a file, so the signature of {path} cannot be verified",
                "check the paths; nothing was imported",
            )
    if signature.stat().st_size > SIGNATURE_LIMIT:
        raise BadFile(f"{signature} is not a signature: it has {signature.stat().st_size} bytes")
    with scratch_folder(cache_folder() / "downloads" / "signed") as folder:
        names = {"archive": path, "signature": signature, "signers": signers}
        for name, source in names.items():
            _copy(source, folder / name)
        yield Signed(_signer(path, signature, signers, folder), folder / "archive")


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise Unavailable(
            f"cannot copy {source} to check its signature: {error.strerror}", "free some space there"
        ) from error


def _signer(path: Path, signature: Path, signers: Path, folder: Path) -> str:
    """Return the signer of the copies in a folder. Errors name the original files."""
    files = ("-s", str(folder / "signature"), "-f", str(folder / "signers"))
    principals = keygen(folder / "archive", "find-principals", *files)
    if principals.returncode:
        hint = f"verify whose key it is before you add it to {signers}"
        raise BadFile(f"{signature} was not made by any signer in {signers}: {_reason(principals)}", hint)
    who = principals.stdout.split("\n")[0]
    verified = keygen(folder / "archive", "verify", *files, "-I", who, "-n", NAMESPACE)
    if verified.returncode:
        raise BadFile(
            f"{path} differs from what {who} signed: {_reason(verified)}", "fetch the file and its signature again"
        )
    return who


def keygen(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `ssh-keygen -Y` on the content of `path`. Raises Unavailable if it is not installed."""
    program = shutil.which("ssh-keygen")
    if program is None:
        raise Unavailable("ssh-keygen is not installed, so no signature can be checked", "install the OpenSSH client")
    with path.open("rb") as content:
        command = [program, "-Y", *arguments]
        return subprocess.run(command, stdin=content, capture_output=True, text=True, errors="replace", check=False)


def _reason(answer: subprocess.CompletedProcess[str]) -> str:
    """The first line of ssh-keygen's error message."""
    return (answer.stderr or answer.stdout).strip().split("\n")[0].strip().rstrip(".") or "ssh-keygen refused it"
