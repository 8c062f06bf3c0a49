"""Frozen outputs computed once: stems and text embeddings of a task's photos, cached by content.

A file's name is the hash of everything its content follows from: the model's fingerprint, the
bytes of the photos, the captions. Change any of them and it is computed again. Shapes: N photos, C captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.checkpoints import Checkpoint
from sglora_cli.contracts import Model, Photo
from sglora_cli.errors import BadFile
from sglora_cli.files import content_hash, file_hash, read_image
from sglora_cli.locking import locked
from sglora_cli.settings import cache_folder
from sglora_cli.tensor_rows import TensorDraft, TensorRows
from sglora_cli.training import StoredTask, TaskTensors

BATCH = 32
"""Decoded photos in memory."""


def feature_key(model: Model, photos: Sequence[Photo]) -> str:
    """Hash of what the features of photos follow from. Reads every photo's bytes; raises BadFile if one is missing."""
    captions = [caption for photo in photos for caption in photo.captions]
    return content_hash([model.fingerprint, [file_hash(photo.path) for photo in photos], captions, _owners(photos)])


def feature_file(key: str) -> Path:
    return cache_folder() / "features" / f"{key}.safetensors"


def task_tensors(model: Model, name: str, photos: Sequence[Photo]) -> TaskTensors:
    """Stems (N, ...) float16 and texts (C, D) of photos in memory, from the cache or computed and put there.

    Raises BadFile if a photo is missing or cannot be decoded.
    """
    return stored_tensors(model, name, photos, feature_key(model, photos)).to(torch.device("cpu"))


def stored_tensors(model: Model, name: str, photos: Sequence[Photo], key: str) -> StoredTask:
    """As `task_tensors`, left on disk and read by rows; `key` is their feature_key."""
    path = feature_file(key)
    for fresh in (False, True):
        if not path.exists():
            for _ in compute(model, name, photos, key):
                pass
        try:
            return StoredTask(name, TensorRows(path, "stem"), TensorRows(path, "text"), tuple(_owners(photos)))
        except BadFile:
            if fresh:
                raise
            path.unlink(missing_ok=True)  # a cache may be damaged; what it held can be computed again
    raise AssertionError("unreachable")


def compute(model: Model, name: str, photos: Sequence[Photo], key: str) -> Iterator[int]:
    """Write the features of photos into the cache; yields how many photos each part had. An interrupted one goes on."""
    path = feature_file(key)
    with locked(path):
        if path.exists():
            yield len(photos)
            return
        text_CD = model.encode_text([caption for photo in photos for caption in photo.captions])
        first = stems(model, photos[:BATCH])
        shapes = {
            "stem": (torch.float16, (len(photos), *first.shape[1:])),
            "text": (torch.float32, tuple(text_CD.shape)),
        }
        draft = TensorDraft(path, shapes, {"kind": "features", "task": name})
        checkpoint = Checkpoint(path.with_suffix(".checkpoint"), draft.sync)
        found = checkpoint.load() if draft.resumed else None
        start = int(found[0]["photos"]) if found else 0
        try:
            draft.put("text", 0, text_CD)
            yield start
            for at in range(start, len(photos), BATCH):
                stem = stems(model, photos[at : at + BATCH]) if at else first
                draft.put("stem", at, stem)
                if checkpoint.due:
                    checkpoint.save({"photos": torch.tensor([at + len(stem)])})
                yield len(stem)
            draft.finish()
            checkpoint.drop()
        finally:
            draft.close()


def stems(model: Model, photos: Sequence[Photo]) -> Tensor:
    """(N, ...) float16 of at most BATCH photos."""
    return model.stem([read_image(photo.path) for photo in photos]).half().cpu()


def _owners(photos: Sequence[Photo]) -> list[int]:
    return [i for i, photo in enumerate(photos) for _ in photo.captions]
