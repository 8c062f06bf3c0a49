"""Features: stems and text embeddings of a task's photos, computed once and cached by content.

The name of a cache file is the hash of everything that determines its content: the model's fingerprint, the bytes of
the photos, and the captions or the classes with their prompts. If any of them changes, or if a cache file is damaged,
the features are recomputed. The photos that are decoded must still have the hashed bytes.
Shapes: N photos, C captions or classes, D embedding.
"""

from __future__ import annotations

import re
from collections.abc import Container, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.data.ahead import ahead, looked_at
from sglora_cli.data.encode import class_heads
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files.hashes import content_hash, file_hash
from sglora_cli.files.tensor_rows import TensorDraft, TensorRows
from sglora_cli.files.tensors import Checkpoint
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.values import Photo, TaskTensors
from sglora_cli.system.locks import locked
from sglora_cli.system.paths import cache_folder

_STEM, _TEXT = torch.float16, torch.float32
_FINITE = "try --precision fp32, or other weights"
VERSION = 2
"""Version of the cache files. Incrementing it invalidates all existing ones."""


@dataclass(frozen=True)
class Features:
    """The photos of one split of a task, and the cache file of their features."""

    name: str
    photos: Sequence[Photo]
    classes: Sequence[str]
    prompts: Sequence[str]
    """Prompts of a classification task, whose heads are the prompts with {class} filled in."""
    key: str
    """Hash of everything that determines the features."""
    hashes: tuple[str, ...] = ()
    """SHA-256 of each photo's bytes, in hexadecimal, in the order of `photos`."""
    mirrored: bool = False
    """Whether the photos are flipped left to right and their captions changed accordingly."""

    @classmethod
    def of(
        cls,
        model: Model,
        name: str,
        photos: Sequence[Photo],
        classes: Sequence[str] = (),
        prompts: Sequence[str] = (),
        hashes: Sequence[str] | None = None,
    ) -> Features:
        """Create the features of photos. Reads the bytes of every photo unless `hashes` is given.

        Raises BadFile if a photo is missing, Mismatch if its class is unknown.
        """
        captions = [caption for photo in photos for caption in photo.captions]
        if classes and (stray := sorted(set(captions) - set(classes))):
            raise Mismatch(f"task {name!r} has a photo of class {stray[0]!r}, but its classes are {', '.join(classes)}")
        read = tuple(ahead(file_hash, [photo.path for photo in photos])) if hashes is None else tuple(hashes)
        one = cls(name, photos, classes, prompts, "", read)
        texts = [list(classes), list(prompts), list(one.label_of)] if classes else [captions, list(one.image_of)]
        return replace(one, key=content_hash([VERSION, model.fingerprint, list(one.hashes), *texts]))

    def without(self, model: Model, photos: Container[str]) -> Features:
        """Return the features without the photos that have these hashes. Reads no files."""
        kept = [n for n, photo in enumerate(self.hashes) if photo not in photos]
        if len(kept) == len(self.photos):
            return self
        hashes, left = [self.hashes[n] for n in kept], [self.photos[n] for n in kept]
        return Features.of(model, self.name, left, self.classes, self.prompts, hashes)

    def mirror(self) -> Features:
        """Return the features of the same photos, flipped left to right. Reads no files."""
        return replace(self, mirrored=True, key=content_hash([self.key, "mirrored"]))

    @property
    def path(self) -> Path:
        return cache_folder() / "features" / f"{self.key}.safetensors"

    @property
    def image_of(self) -> tuple[int, ...]:
        """The photo index of each caption; empty for a classification task."""
        return () if self.classes else tuple(i for i, photo in enumerate(self.photos) for _ in photo.captions)

    @property
    def label_of(self) -> tuple[int, ...]:
        """The class index of each photo; empty if there are no classes."""
        return tuple(self.classes.index(photo.captions[0]) for photo in self.photos) if self.classes else ()

    def texts(self, model: Model) -> Tensor:
        """Compute the text embeddings (C, D) of the captions, or the heads of the classes."""
        if self.classes:
            return class_heads(model, self.classes, self.prompts)
        captions = [caption for photo in self.photos for caption in photo.captions]
        return model.encode_text([mirrored_caption(caption) for caption in captions] if self.mirrored else captions)

    def stored(self, model: Model) -> StoredTask:
        """Return the features on disk. Computes them if they are missing or damaged.

        Raises BadFile if a photo cannot be decoded, or if its bytes changed since they were hashed.
        """
        if not self._whole():
            with locked(self.path):
                if not self._whole():  # another process may have recreated it while this one waited
                    self.path.unlink(missing_ok=True)
            for _ in self.compute(model):
                pass
        stem, text = TensorRows(self.path, "stem"), TensorRows(self.path, "text")
        return StoredTask(self.name, stem, text, self.image_of, self.label_of)

    def tensors(self, model: Model) -> TaskTensors:
        """Return the features in CPU memory. Caches them and raises errors as `stored` does."""
        return self.stored(model).to(torch.device("cpu"))

    def _whole(self) -> bool:
        """Whether the cache has a complete, undamaged file."""
        if not self.path.exists():
            return False
        try:
            stem, text = TensorRows(self.path, "stem"), TensorRows(self.path, "text")
            stem.check()
            text.check()
        except BadFile:
            return False
        count = len(self.classes) or len(self.image_of)
        return (len(stem), stem.dtype, len(text), text.dtype) == (len(self.photos), _STEM, count, _TEXT)

    def compute(self, model: Model) -> Iterator[int]:
        """Write the features into the cache and yield the number of photos in each batch. Resumes if interrupted."""
        with locked(self.path):
            if self.path.exists():
                yield len(self.photos)
                return
            text_CD, batches = self.texts(model), self._stems(model, 0)
            if not bool(torch.isfinite(text_CD).all()):
                raise Mismatch(f"the backbone's embeddings of the texts of {self.name!r} are not finite", _FINITE)
            first = next(batches)
            shapes = {
                "stem": (_STEM, (len(self.photos), *first.shape[1:])),
                "text": (_TEXT, tuple(text_CD.shape)),
            }
            draft = TensorDraft(self.path, shapes, {"kind": "features", "task": self.name})
            checkpoint = Checkpoint(self.path.with_suffix(".checkpoint"), draft.sync)
            state = checkpoint.load() if draft.resumed else None
            start = int(state[0]["photos"]) if state else 0
            try:
                draft.put("text", 0, text_CD)
                yield start
                at, left = start, self._stems(model, start) if start else chain([first], batches)
                for stem in left:
                    draft.put("stem", at, stem)
                    at += len(stem)
                    if checkpoint.due:
                        checkpoint.save({"photos": torch.tensor([at])})
                    yield len(stem)
                draft.finish()
                checkpoint.drop()
            finally:
                batches.close()
                draft.close()

    def _stems(self, model: Model, at: int) -> Generator[Tensor]:
        """Yield the stems (N, ...), float16, of the photos from index `at`, BATCH at a time."""
        known = [(photo.path, sha256) for photo, sha256 in zip(self.photos, self.hashes, strict=True)][at:]
        for stem in looked_at(model, known, self.mirrored):
            half = stem.half().cpu()
            for (path, _), row in zip(known[: len(half)], half, strict=True):
                if not bool(torch.isfinite(row).all()):
                    raise Mismatch(f"the backbone's output for {path} is not finite", _FINITE)
            known = known[len(half) :]
            yield half


def task_tensors(
    model: Model, name: str, photos: Sequence[Photo], classes: Sequence[str] = (), prompts: Sequence[str] = ()
) -> TaskTensors:
    """Return stems (N, ...), float16, and text embeddings (C, D) of photos in memory, from the cache or computed.

    With classes, the text embeddings are the class heads: the prompts with {class} filled in.
    Raises BadFile if a photo is missing or cannot be decoded, Mismatch if its class is unknown.
    """
    return Features.of(model, name, photos, classes, prompts).tensors(model)


def stems(model: Model, photos: Sequence[Photo]) -> Tensor:
    """Return the stems (N, ...) of photos, float16."""
    return torch.cat([stem.half().cpu() for stem in looked_at(model, [(photo.path, "") for photo in photos])])


@dataclass(frozen=True)
class StoredTask:
    """TaskTensors that stay on disk. Each training step reads the rows it needs."""

    name: str
    stem_N: TensorRows
    text_CD: TensorRows
    image_of: tuple[int, ...]
    label_of: tuple[int, ...] = ()
    mirror: StoredTask | None = field(default=None, repr=False)

    def to(self, device: torch.device) -> TaskTensors:
        mirror = self.mirror.to(device) if self.mirror else None
        stem_N, text_CD = self.stem_N.to(device), self.text_CD.to(device)
        return TaskTensors(self.name, stem_N, text_CD, self.image_of, self.label_of, mirror)


_SIDES = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "LEFT": "RIGHT", "RIGHT": "LEFT"}


def mirrored_caption(caption: str) -> str:
    """Swap left and right in a caption, to fit the mirrored photo.

    >>> mirrored_caption("A dog on the left of a right-handed man")
    'A dog on the right of a left-handed man'
    """
    return re.sub(rf"\b(?:{'|'.join(_SIDES)})\b", lambda word: _SIDES[word[0]], caption)
