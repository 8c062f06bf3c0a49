"""Find images that look alike: compute perceptual hashes, and all pairs of hashes within a distance.

A hash has 64 bits, one for each of the 8 x 8 lowest frequencies of an image. A bit is set if its frequency is above
their median (`phash` of the library imagehash). Resizing, compression and small changes of brightness hardly change the
hash, mirroring and cropping do. Half of the bits are ones, so distances are even.

Shapes: N images, R rows of one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sglora_cli.errors import Unavailable

if TYPE_CHECKING:
    from PIL.Image import Image


BITS = 64
_ONES = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)  # numpy 1.26 has no bit count


def hasher() -> Callable[[Image], int]:
    """Return a function from an image to its 64-bit hash. Raises Unavailable if imagehash is not installed."""
    try:
        import imagehash
    except ImportError:
        raise Unavailable("the package imagehash is not installed", 'pip install "sglora[check]"') from None
    return lambda image: int(str(imagehash.phash(image)), 16)


def near_pairs(hashes_N: NDArray[np.uint64], distance: int) -> Iterator[tuple[int, int, int]]:
    """Yield each (i, j, bits) with i < j whose hashes differ in at most `distance` bits, once.

    The 64 bits are split into distance + 1 chunks. Two hashes that differ in at most `distance` bits have at least one
    equal chunk, so it is enough to compare hashes with an equal chunk. Each pair is yielded at its first equal chunk.
    The order is arbitrary but deterministic.

    >>> list(near_pairs(np.array([0b0000, 0b0011, 0b1111], dtype=np.uint64), 2))
    [(0, 1, 2), (1, 2, 2)]
    """
    chunks = _chunks(distance + 1)
    for c, chunk in enumerate(chunks):
        order_N = np.argsort(hashes_N & chunk, kind="stable")
        sorted_N = hashes_N[order_N]
        key_N, row_R = sorted_N & chunk, np.arange(len(sorted_N))
        for step in count(1):
            # Keep the rows whose chunk equals that of the row `step` below. Every step leaves fewer rows.
            row_R = row_R[row_R + step < len(key_N)]
            row_R = row_R[key_N[row_R] == key_N[row_R + step]]
            if not len(row_R):
                break
            different_R = sorted_N[row_R] ^ sorted_N[row_R + step]
            apart_R = _ONES[different_R.view(np.uint8)].reshape(-1, BITS // 8).sum(axis=1)
            new_R = apart_R <= distance
            for earlier in chunks[:c]:
                new_R &= (different_R & earlier) != 0
            for row, apart in zip(row_R[new_R], apart_R[new_R], strict=True):
                i, j = sorted((int(order_N[row]), int(order_N[row + step])))
                yield i, j, int(apart)


def _chunks(many: int) -> list[np.uint64]:
    """Return masks that split 64 bits into `many` runs of about equal length.

    >>> [bin(mask).count("1") for mask in map(int, _chunks(5))]
    [12, 13, 13, 13, 13]
    """
    edges = [BITS * c // many for c in range(many + 1)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]
