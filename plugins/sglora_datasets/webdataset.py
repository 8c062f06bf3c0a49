"""Tar shards of webdataset: `0001.jpg`, `0001.txt` with one caption per line, and optionally `0001.json`.

The JSON may contain `task` and `split`. Otherwise the task is named after the folder, and the split is `train` or
`test` if the shard is in a folder of that name, otherwise `train`. Shards are *.tar in the folder, train/ and test/.
A key is the part before the last dot, so `v1.00.jpg` belongs to `v1.00.txt`. (webdataset's own readers split at the
first dot and treat both as parts of a sample `v1`, which would require naming the part with the photo.) Other members,
hidden members, and samples without an image or a caption are ignored and counted.

Training reads photos by path, so they are unpacked once into the user cache. Names in a shard never become file names
there: a photo is named by the hash of its bytes, and a shard's index by the hash of the shard. An interrupted unpacking
resumes, and damaged files are unpacked again. Only uncompressed tars without links or sparse files are read, so the
output is never larger than the input.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sglora_cli.api import (
    SPLITS,
    BadFile,
    Photo,
    Task,
    Unavailable,
    cache_folder,
    data_hash,
    file_hash,
    image_endings,
    is_intact,
    parse_json,
    printable_name,
    progress,
    read_sealed,
    text_lines,
    why_undecoded,
    write_bytes,
    write_sealed,
)

from .archive import plain
from .tasks import gathered

TEXTS = (".txt", ".json")
LIMITS = {".txt": 1 << 20, ".json": 1 << 20}
IMAGE_LIMIT = 64 << 20
"""Largest size of a photo in bytes."""


class Content(NamedTuple):
    """The content of a shard as stored in its index."""

    rows: list[dict[str, Any]]
    passed_over: list[tuple[str, str]]
    """(member or sample, reason)."""


@dataclass
class Sample:
    """The members of one key in a shard."""

    texts: dict[str, bytes] = field(default_factory=dict)
    image: str = ""
    """The photo's path relative to the cache."""


@dataclass(frozen=True)
class WebDataset:
    name: str = "webdataset"
    summary: str = "webdataset shards (tar) with a .txt of captions beside each image"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Return every task of the shards, sorted. Photos missing in the user cache are unpacked.

        Raises Unavailable without shards or space, BadFile with shard and sample for invalid content.
        """
        photos, why = [], ""
        for shard in progress(_shards(root), "shards"):
            content = _unpacked(shard)
            photos += list(_photos(content.rows, shard, root))
            if content.passed_over and not why:
                why = ". The first ignored entry is {!r}: {}".format(*content.passed_over[0])
        if not photos:
            raise BadFile(f"{root}: the shards contain no samples{why}", "a sample is KEY.jpg with KEY.txt beside it")
        return gathered(root, photos)

    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        """Yield members that belong to no sample, and samples without an image or a caption."""
        for shard in _shards(root):
            for name, reason in _unpacked(shard).passed_over:
                yield f"{shard.relative_to(root).as_posix()}: {name}", reason


def _shards(root: Path) -> list[Path]:
    shards = [path for folder in ("", *SPLITS) for path in sorted((root / folder).glob("*.tar"))]
    if not shards:
        raise Unavailable(f"{root} has no *.tar", "pass a folder with shards, or with shards in train/ and test/")
    return shards


def _unpacked(shard: Path) -> Content:
    """Return the content of a shard after unpacking its photos into the user cache."""
    place = cache_folder() / "unpacked"
    index = place / "shards" / f"{file_hash(shard)}.json"
    if (known := _known(index, place)) is not None:
        return known
    passed_over: list[tuple[str, str]] = []
    rows = []
    for key, sample in _samples(shard, place, passed_over).items():
        row = _row(sample, f"{shard}, sample {key!r}")
        if not sample.image or not row["captions"]:
            what = "a caption in their .txt" if ".txt" in sample.texts else ".txt"
            passed_over.append((key, f"samples without {what if sample.image else 'an image'}"))
        else:
            rows.append(row)
    write_sealed(index, {"rows": rows, "passed_over": passed_over})
    return Content(rows, passed_over)


def _photos(rows: list[dict[str, Any]], shard: Path, root: Path) -> Iterator[tuple[str, str, Photo]]:
    """Yield (task, split, photo) of every sample of a shard."""
    usual = shard.parent.name if shard.parent != root else "train"
    for row in rows:
        photo = Photo(cache_folder() / "unpacked" / row["image"], tuple(row["captions"]))
        yield row.get("task", root.name), row.get("split", usual), photo


def _known(index: Path, place: Path) -> Content | None:
    """Return the cached content of a shard, or None if it must be unpacked, possibly again."""
    try:
        table = read_sealed(index)
    except BadFile:  # missing, damaged, or of an older version
        return None
    images = {place / row["image"] for row in table["rows"]}
    if not all(is_intact(image, image.stem) for image in images):
        return None
    return Content(table["rows"], [(name, reason) for name, reason in table["passed_over"]])


def _samples(shard: Path, place: Path, passed_over: list[tuple[str, str]]) -> dict[str, Sample]:
    """Return samples by key, in the shard's order, after unpacking their photos into the cache. Other members are
    added to `passed_over`."""
    samples: dict[str, Sample] = {}
    last = 0
    try:
        with shard.open("rb") as file, plain(file) as tar:
            for member in tar:
                if tar.offset <= last:  # a negative size would be read in an endless loop
                    raise BadFile(
                        f"{shard}, member {member.name[:100]!r} has a size of {member.size}", "download it again"
                    )
                last = tar.offset
                if why := _taken(tar, member, samples, place, shard):
                    passed_over.append((printable_name(Path(member.name)), why))
            if tar.fileobj is not None:
                tar.fileobj.seek(tar.offset)
                if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile stops silently
                    raise BadFile(f"{shard} is truncated or damaged after {len(samples)} samples", "download it again")
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
        raise BadFile(
            f"{shard} is damaged or not an uncompressed tar: {error}", "download it again, or gunzip it"
        ) from None
    return samples


def _taken(tar: tarfile.TarFile, member: tarfile.TarInfo, samples: dict[str, Sample], place: Path, shard: Path) -> str:
    """Unpack a photo into the cache or a text into its sample. Returns why the member is ignored, or ""."""
    where = f"{shard}, member {member.name[:100]!r}"
    if member.isdir():
        return ""
    if not member.isreg() or member.issparse():
        raise BadFile(f"{where} is a link, a device or a sparse file, not a file", "create the shard without it")
    path = PurePosixPath(member.name)
    part = path.suffix.lower()
    if path.name.startswith("."):
        return "hidden members"
    if part not in image_endings() and part not in TEXTS:
        return why_undecoded(part) or (f"members that end in {part}" if part else "members without an extension")
    if member.size > (limit := LIMITS.get(part, IMAGE_LIMIT)):
        raise BadFile(f"{where} has {member.size} bytes, more than {limit}")
    content = tar.extractfile(member)
    data = content.read() if content is not None else b""
    sample = samples.setdefault(str(path.with_suffix("")), Sample())
    if part in sample.texts or (part not in TEXTS and sample.image):
        raise BadFile(f"{where}: the sample already has {part} or an image")
    if part in TEXTS:
        sample.texts[part] = data
        return ""
    digest = data_hash(data)
    sample.image = f"images/{digest[:2]}/{digest}{part}"
    if not is_intact(place / sample.image, digest):
        write_bytes(place / sample.image, data)
    return ""


def _row(sample: Sample, where: str) -> dict[str, Any]:
    """Return the sample for the index. It may lack an image or captions. Raises BadFile."""
    texts = [line.strip() for _, line in text_lines(Path(where), sample.texts.get(".txt", b""))]
    metadata = parse_json(sample.texts.get(".json", b"{}"), where)
    row: dict[str, Any] = {"image": sample.image, "captions": texts}
    for key in ("task", "split"):
        if isinstance(metadata, dict) and key in metadata:
            value = metadata[key]
            if not isinstance(value, str) or not value.strip() or (key == "split" and value not in SPLITS):
                kinds = f"one of {', '.join(SPLITS)}" if key == "split" else "a string"
                raise BadFile(f"{where}: {key!r} must be {kinds}, got {value!r:.100}")
            row[key] = value
    return row
