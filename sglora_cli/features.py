"""Frozen outputs computed once: stems and text embeddings of a task's photos, cached by content.

A file's name is the hash of everything its content follows from: the model's fingerprint, the
bytes of the photos, the captions or the heads of classes. Change any of them and it is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sglora_cli.classifying import class_heads
from sglora_cli.contracts import Model, Photo
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files import content_hash, file_hash, load_tensors, read_image, save_tensors
from sglora_cli.settings import cache_folder
from sglora_cli.training import TaskTensors

_BATCH = 32


def task_tensors(
    model: Model, name: str, photos: Sequence[Photo], classes: Sequence[str] = (), prompts: Sequence[str] = ()
) -> TaskTensors:
    """Stems (N, ...) float16 and texts (C, D) of photos, from the cache or computed and put there.

    With classes, the texts are their heads: the prompts with {class} filled in.
    Raises BadFile if a photo is missing or cannot be decoded, Mismatch if it is of no class.
    """
    captions = [caption for photo in photos for caption in photo.captions]
    image_of = tuple(i for i, photo in enumerate(photos) for _ in photo.captions) if not classes else ()
    if classes and (stray := sorted(set(captions) - set(classes))):
        raise Mismatch(f"task {name!r} has a photo of class {stray[0]!r}, its classes are {', '.join(classes)}")
    label_of = tuple(classes.index(photo.captions[0]) for photo in photos) if classes else ()
    texts: list[object] = [captions, list(image_of)] if not classes else [list(classes), list(prompts), list(label_of)]
    key = content_hash([model.fingerprint, [file_hash(photo.path) for photo in photos], *texts])
    path = cache_folder() / "features" / f"{key}.safetensors"
    if path.exists():
        try:
            tensors, _ = load_tensors(path, ("stem", "text"))
            return TaskTensors(name, tensors["stem"], tensors["text"], image_of, label_of)
        except BadFile:
            path.unlink(missing_ok=True)  # a cache may be damaged; what it held can be computed again
    stem = stems(model, photos)
    text = class_heads(model, classes, prompts) if classes else model.encode_text(captions)
    save_tensors(path, {"stem": stem, "text": text}, {"kind": "features", "task": name})
    return TaskTensors(name, stem, text, image_of, label_of)


def stems(model: Model, photos: Sequence[Photo]) -> Tensor:
    """(N, ...) float16; at most 32 decoded photos in memory."""
    parts = [
        model.stem([read_image(photo.path) for photo in photos[start : start + _BATCH]]).half().cpu()
        for start in range(0, len(photos), _BATCH)
    ]
    return torch.cat(parts)
