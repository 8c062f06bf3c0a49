"""Photos that are read, decoded and prepared in threads, ahead of the device that looks at them.

Reading, decoding and resizing leave Python to other threads. While the device computes one batch, the next is made
ready; no more than that, as decoded photos are large. Shapes: N photos.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sglora_cli.errors import BadFile
from sglora_cli.files.images import read_image
from sglora_cli.plugin.contracts import Model, PreparesPhotos

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

T = TypeVar("T")
V = TypeVar("V")

BATCH = 32
"""Photos that a model looks at at once."""
_DECODED = 4
"""Photos that wait in full size, where the model does not prepare them itself."""
_MOST = 16
"""Threads."""


def ahead(work: Callable[[T], V], items: Iterable[T], most: int = BATCH) -> Generator[V]:
    """`work` of each item, in order; it is done in threads for at most `most` items that nobody has asked for yet.

    The first error ends it, and what waits is given up.
    """
    pool = ThreadPoolExecutor(min(_MOST, os.cpu_count() or 1))
    waiting: deque[Future[V]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # after an interruption nobody waits for the rest


def looked_at(model: Model, photos: Sequence[tuple[Path, str]], mirrored: bool = False) -> Iterator[Tensor]:
    """The stems (N, ...) of photos on the CPU, BATCH at a time.

    photos: of each its path, and the SHA-256 that its bytes must have, or "".  mirrored: left to right. Raises BadFile
    for a photo that is missing or broken, or whose bytes changed.
    """

    def refuse(n: int, error: BadFile) -> None:
        raise error

    return (stem for _, stem in readable(model, photos, refuse, mirrored))


def readable(
    model: Model,
    photos: Sequence[tuple[Path, str]],
    refuse: Callable[[int, BadFile], None],
    mirrored: bool = False,
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """The same with the rows of `photos` that are in each batch. `refuse` gets the row of a photo that cannot be read,
    and the reason; unless it raises, the photo is left out."""
    prepares = isinstance(model, PreparesPhotos)
    work = ahead(partial(_ready, model, mirrored), photos, BATCH if prepares else _DECODED)
    rows, batch = [], []
    # Closed at once after an error: the garbage collector might join its threads while another thread starts, for ever.
    with closing(work) as ready:
        for n, one in zip(range(len(photos)), ready, strict=True):
            if isinstance(one, BadFile):
                refuse(n, one)
            else:
                rows.append(n)
                batch.append(one)
            if len(batch) == BATCH or (batch and n == len(photos) - 1):
                yield rows, _stem_of(model, batch)
                rows, batch = [], []


def _ready(model: Model, mirrored: bool, photo: tuple[Path, str]) -> Image | Tensor | BadFile:
    from PIL import ImageOps

    try:
        image = read_image(*photo)
    except BadFile as error:
        return error
    return _prepared(model, ImageOps.mirror(image) if mirrored else image)


def _prepared(model: Model, image: Image) -> Image | Tensor:
    """What `_stem_of` takes: prepared by the model, if it does that one by one."""
    return model.prepare(image) if isinstance(model, PreparesPhotos) else image


def _stem_of(model: Model, photos: Sequence[Image | Tensor]) -> Tensor:
    """The stem (N, ...) of photos as `_prepared` gives them."""
    return model.stem_of(photos) if isinstance(model, PreparesPhotos) else model.stem(photos)  # type: ignore[arg-type]
