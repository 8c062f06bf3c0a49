"""Read, decode and prepare photos in threads, ahead of the device that encodes them.

Reading, decoding and resizing release Python's global lock. While the device computes one batch, threads prepare the
next one. They prepare no more than one, because decoded photos are large. Shapes: N photos.
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
"""Photos per forward pass."""
_DECODED = 4
"""Full-size photos that wait in memory, for a model that does not prepare photos one by one."""
_MOST = 16
"""The largest number of threads."""


def ahead(work: Callable[[T], V], items: Iterable[T], most: int = BATCH) -> Generator[V]:
    """Yield `work(item)` for each item, in order, and compute up to `most` items ahead in threads.

    The first error ends the iteration and cancels the waiting items.
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
        pool.shutdown(cancel_futures=True)  # after an interruption nobody needs the remaining items


def looked_at(model: Model, photos: Sequence[tuple[Path, str]], mirrored: bool = False) -> Iterator[Tensor]:
    """Yield the stems (N, ...) of photos on the CPU, BATCH at a time.

    photos: path and expected SHA-256 of each photo; "" skips the comparison.  mirrored: flip photos left to right.
    Raises BadFile for a photo that is missing or broken, or whose bytes changed.
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
    """Yield (rows, stems) for each batch, where rows are indices into `photos`.

    refuse: called with the row of each photo that cannot be read and the error. If it returns, the photo is skipped.
    """
    prepares = isinstance(model, PreparesPhotos)
    work = ahead(partial(_ready, model, mirrored), photos, BATCH if prepares else _DECODED)
    rows, batch = [], []
    # Close at once after an error. Otherwise the garbage collector may join the threads while another thread starts,
    # which deadlocks.
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
    """Prepare a photo for `_stem_of`, if the model prepares photos one by one."""
    return model.prepare(image) if isinstance(model, PreparesPhotos) else image


def _stem_of(model: Model, photos: Sequence[Image | Tensor]) -> Tensor:
    """Compute the stem (N, ...) of photos that `_prepared` returned."""
    return model.stem_of(photos) if isinstance(model, PreparesPhotos) else model.stem(photos)  # type: ignore[arg-type]
