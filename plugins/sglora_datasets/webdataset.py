"""Tar shards as webdataset writes them: `0001.jpg`, `0001.txt` with one caption a line, and, if there is, `0001.json`.

The JSON may name `task` and `split`. Without it the task is called like the folder, and the split is `train` or `test`
if the shard lies in a folder of that name, else `train`. Shards are *.tar in the folder, and in train/ and test/.
A key is what stands before the last dot: `v1.00.jpg` belongs to `v1.00.txt`. (webdataset's own readers cut at the first
dot; to them both are parts of a sample `v1`, and which part is the photo would have to be said.) Other members, hidden
ones, and samples without an image or a caption are passed over, and counted.

Training reads photos by path, so they are unpacked once, into the user cache. Nothing in a shard names a file there: a
photo is called by the hash of its bytes, a shard's index by the hash of the shard. An interrupted unpacking goes
on, and what is not as it was written is unpacked again. Only plain tars are read, and no links or sparse files: what
comes out is never more than what went in.
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
    json_value,
    printable_name,
    progress,
    read_sealed,
    why_undecoded,
    write_bytes,
    write_sealed,
)

from .archive import plain
from .tasks import gathered

TEXTS = (".txt", ".json")
LIMITS = {".txt": 1 << 20, ".json": 1 << 20}
IMAGE_LIMIT = 64 << 20
"""Bytes of one photo."""


class Content(NamedTuple):
    """What a shard holds, as the index keeps it."""

    rows: list[dict[str, Any]]
    passed_over: list[tuple[str, str]]
    """(member or sample, reason)."""


@dataclass
class Sample:
    """What a shard has of one key."""

    texts: dict[str, bytes] = field(default_factory=dict)
    image: str = ""
    """The photo's place below the cache."""


@dataclass(frozen=True)
class WebDataset:
    name: str = "webdataset"
    summary: str = "tar shards with a .txt of captions beside each image"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Every task of the shards, sorted. Photos that are not in the user cache yet are put there.

        Raises Unavailable without a shard or space, BadFile with shard and sample for what is wrong.
        """
        photos, why = [], ""
        for shard in progress(_shards(root), "shards"):
            content = _unpacked(shard)
            photos += list(_photos(content.rows, shard, root))
            if content.passed_over and not why:
                why = "; the first that is passed over is {!r}: {}".format(*content.passed_over[0])
        if not photos:
            raise BadFile(f"{root}: the shards hold no sample{why}", "a sample is KEY.jpg with KEY.txt beside it")
        return gathered(root, photos)

    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        """Members that are no part of a sample, and samples without an image or a caption."""
        for shard in _shards(root):
            for name, reason in _unpacked(shard).passed_over:
                yield f"{shard.relative_to(root).as_posix()}: {name}", reason


def _shards(root: Path) -> list[Path]:
    shards = [path for folder in ("", *SPLITS) for path in sorted((root / folder).glob("*.tar"))]
    if not shards:
        raise Unavailable(f"{root} has no *.tar", "name a folder with shards, or with train/ and test/ of them")
    return shards


def _unpacked(shard: Path) -> Content:
    """What a shard holds; its photos are in the user cache then."""
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
    """(task, split, photo) of every sample of a shard."""
    usual = shard.parent.name if shard.parent != root else "train"
    for row in rows:
        photo = Photo(cache_folder() / "unpacked" / row["image"], tuple(row["captions"]))
        yield row.get("task", root.name), row.get("split", usual), photo


def _known(index: Path, place: Path) -> Content | None:
    """What the shard was found to hold before; None if it must be unpacked, perhaps again."""
    try:
        table = read_sealed(index)
    except BadFile:  # there is none, it is damaged, or of an older version
        return None
    images = {place / row["image"] for row in table["rows"]}
    if not all(is_intact(image, image.stem) for image in images):
        return None
    return Content(table["rows"], [(name, reason) for name, reason in table["passed_over"]])


def _samples(shard: Path, place: Path, passed_over: list[tuple[str, str]]) -> dict[str, Sample]:
    """Samples by key, in the shard's order; their photos are in the cache when this returns. Other members are added
    to what is passed over."""
    samples: dict[str, Sample] = {}
    last = 0
    try:
        with shard.open("rb") as file, plain(file) as tar:
            for member in tar:
                if tar.offset <= last:  # a negative size: it would be read again and again
                    raise BadFile(
                        f"{shard}, member {member.name[:100]!r} has a size of {member.size}", "fetch it again"
                    )
                last = tar.offset
                if why := _taken(tar, member, samples, place, shard):
                    passed_over.append((printable_name(Path(member.name)), why))
            if tar.fileobj is not None:
                tar.fileobj.seek(tar.offset)
                if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile stops and says nothing
                    raise BadFile(f"{shard} ends early, or is damaged after {len(samples)} samples", "fetch it again")
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
        raise BadFile(f"{shard} is not a whole plain tar: {error}", "fetch it again, or gunzip it") from None
    return samples


def _taken(tar: tarfile.TarFile, member: tarfile.TarInfo, samples: dict[str, Sample], place: Path, shard: Path) -> str:
    """Put one member where it belongs: a photo into the cache, a text into its sample. Why it is passed over, or ""."""
    where = f"{shard}, member {member.name[:100]!r}"
    if member.isdir():
        return ""
    if not member.isreg() or member.issparse():
        raise BadFile(f"{where} is a link, a device or a sparse file, not a file", "pack it again without")
    path = PurePosixPath(member.name)
    part = path.suffix.lower()
    if path.name.startswith("."):
        return "hidden members"
    if part not in image_endings() and part not in TEXTS:
        return why_undecoded(part) or (f"members that end in {part}" if part else "members without an ending")
    if member.size > (limit := LIMITS.get(part, IMAGE_LIMIT)):
        raise BadFile(f"{where} has {member.size} bytes, more than {limit}")
    content = tar.extractfile(member)
    data = content.read() if content is not None else b""
    sample = samples.setdefault(str(path.with_suffix("")), Sample())
    if part in sample.texts or (part not in TEXTS and sample.image):
        raise BadFile(f"{where}: the sample has {part} already, or an image")
    if part in TEXTS:
        sample.texts[part] = data
        return ""
    digest = data_hash(data)
    sample.image = f"images/{digest[:2]}/{digest}{part}"
    if not is_intact(place / sample.image, digest):
        write_bytes(place / sample.image, data)
    return ""


def _row(sample: Sample, where: str) -> dict[str, Any]:
    """The sample as the index keeps it; it may lack an image and captions. Raises BadFile."""
    try:
        texts = [line.strip() for line in sample.texts.get(".txt", b"").decode("utf-8").split("\n") if line.strip()]
        metadata = json_value(sample.texts.get(".json", b"{}").decode("utf-8"))
    except ValueError as error:
        raise BadFile(f"{where}: {error}") from None
    row: dict[str, Any] = {"image": sample.image, "captions": texts}
    for key in ("task", "split"):
        if isinstance(metadata, dict) and key in metadata:
            value = metadata[key]
            if not isinstance(value, str) or not value.strip() or (key == "split" and value not in SPLITS):
                kinds = f"one of {', '.join(SPLITS)}" if key == "split" else "a text"
                raise BadFile(f"{where}: {key!r} must be {kinds}, got {value!r:.100}")
            row[key] = value
    return row
