"""Tar shards as webdataset writes them: `0001.jpg`, `0001.txt` with one caption a line, and, if there is, `0001.json`.

The JSON may name `task` and `split`. Without it the task is called like the folder, and the split is `train` or `test`
if the shard lies in a folder of that name, else `train`. Shards are *.tar in the folder, and in train/ and test/.

Training reads photos by path, so they are unpacked once, into the user cache. Nothing in a shard names a file there: a
photo is called by the hash of its bytes, a shard's index by the hash of the shard. An interrupted unpacking goes
on. Only plain tars are read, and no links or sparse files: what comes out is never more than what went in.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sglora_cli.api import (
    SPLITS,
    BadFile,
    Photo,
    Task,
    Unavailable,
    cache_folder,
    file_hash,
    json_value,
    progress,
    read_json,
    write_bytes,
)

from .archive import plain
from .tasks import gathered

IMAGES = (".jpg", ".jpeg", ".png", ".webp")
PARTS = (*IMAGES, ".txt", ".json")
LIMITS = {".txt": 1 << 20, ".json": 1 << 20}
IMAGE_LIMIT = 64 << 20
"""Bytes of one photo."""


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
        shards = [path for folder in ("", *SPLITS) for path in sorted((root / folder).glob("*.tar"))]
        if not shards:
            raise Unavailable(f"{root} has no *.tar", "name a folder with shards, or with train/ and test/ of them")
        photos = [row for shard in progress(shards, "shards") for row in _unpacked(shard, root)]
        if not photos:
            raise BadFile(f"{root}: the shards hold no sample")
        return gathered(root, photos)


def _unpacked(shard: Path, root: Path) -> Iterator[tuple[str, str, Photo]]:
    """(task, split, photo) of every sample of a shard."""
    place = cache_folder() / "unpacked"
    index = place / "shards" / f"{file_hash(shard)}.json"
    rows = _known(index, place)
    if rows is None:
        rows = [_row(sample, f"{shard}, sample {key!r}") for key, sample in _samples(shard, place).items()]
        write_bytes(index, json.dumps(rows).encode())
    usual = shard.parent.name if shard.parent != root else "train"
    for row in rows:
        photo = Photo(place / row["image"], tuple(row["captions"]))
        yield row.get("task", root.name), row.get("split", usual), photo


def _known(index: Path, place: Path) -> list[dict[str, Any]] | None:
    """What the shard was found to hold before; None if it must be unpacked, perhaps again."""
    try:
        rows: list[dict[str, Any]] = read_json(index)
        return rows if all((place / row["image"]).is_file() for row in rows) else None
    except (BadFile, TypeError, KeyError):  # a cache may be damaged
        return None


def _samples(shard: Path, place: Path) -> dict[str, Sample]:
    """Samples by key, in the shard's order; their photos are in the cache when this returns."""
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
                _take(tar, member, samples, place, shard)
            if tar.fileobj is not None:
                tar.fileobj.seek(tar.offset)
                if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile stops and says nothing
                    raise BadFile(f"{shard} ends early, or is damaged after {len(samples)} samples", "fetch it again")
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
        raise BadFile(f"{shard} is not a whole plain tar: {error}", "fetch it again, or gunzip it") from None
    return samples


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, samples: dict[str, Sample], place: Path, shard: Path) -> None:
    """Put one member where it belongs: a photo into the cache, a text into its sample."""
    where = f"{shard}, member {member.name[:100]!r}"
    if member.isdir():
        return
    if not member.isreg() or member.issparse():
        raise BadFile(f"{where} is a link, a device or a sparse file, not a file", "pack it again without")
    path = PurePosixPath(member.name)
    stem, _, ending = path.name.partition(".")
    part = f".{ending.lower()}"
    if part not in PARTS:
        return  # shards carry classes, embeddings ... for others
    if member.size > (limit := LIMITS.get(part, IMAGE_LIMIT)):
        raise BadFile(f"{where} has {member.size} bytes, more than {limit}")
    content = tar.extractfile(member)
    data = content.read() if content is not None else b""
    sample = samples.setdefault(str(path.with_name(stem)), Sample())
    if part in sample.texts or (part in IMAGES and sample.image):
        raise BadFile(f"{where}: the sample has {part} already, or an image")
    if part in IMAGES:
        digest = hashlib.sha256(data).hexdigest()
        sample.image = f"images/{digest[:2]}/{digest}{part}"
        if not (place / sample.image).is_file():
            write_bytes(place / sample.image, data)
    else:
        sample.texts[part] = data


def _row(sample: Sample, where: str) -> dict[str, Any]:
    """The sample as the index keeps it. Raises BadFile."""
    if not sample.image:
        raise BadFile(f"{where} has no image ({', '.join(IMAGES)})")
    if ".txt" not in sample.texts:
        raise BadFile(f"{where} has no .txt with captions")
    try:
        texts = [line.strip() for line in sample.texts[".txt"].decode("utf-8").split("\n") if line.strip()]
        metadata = json_value(sample.texts.get(".json", b"{}").decode("utf-8"))
    except ValueError as error:
        raise BadFile(f"{where}: {error}") from None
    if not texts:
        raise BadFile(f"{where} has an empty .txt", "caption it or leave it out")
    row: dict[str, Any] = {"image": sample.image, "captions": texts}
    for key in ("task", "split"):
        if isinstance(metadata, dict) and key in metadata:
            value = metadata[key]
            if not isinstance(value, str) or not value.strip() or (key == "split" and value not in SPLITS):
                kinds = f"one of {', '.join(SPLITS)}" if key == "split" else "a text"
                raise BadFile(f"{where}: {key!r} must be {kinds}, got {value!r:.100}")
            row[key] = value
    return row
