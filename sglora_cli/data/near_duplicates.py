"""Images that look alike: perceptual hashes, and every pair of them within a distance.

A hash is 64 bits: the signs of an image's 8 x 8 lowest frequencies around their median (the
library imagehash's `phash`). It survives another size, compression and small changes of light,
not a mirror or a crop. Half of its bits are ones, so distances are even.

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
_ONES = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)  # numpy 1.26 cannot count bits itself


def hasher() -> Callable[[Image], int]:
    """Image -> its hash, a whole number of 64 bits. Raises Unavailable without the library."""
    try:
        import imagehash
    except ImportError:
        raise Unavailable("the package imagehash is not installed", 'pip install "sglora[check]"') from None
    return lambda image: int(str(imagehash.phash(image)), 16)


def near_pairs(hashes_N: NDArray[np.uint64], distance: int) -> Iterator[tuple[int, int, int]]:
    """Every pair (i, j, distance of their hashes) with i < j and at most `distance` different bits, each once.

    The 64 bits are cut into distance + 1 chunks. Two hashes that differ in at most `distance` bits
    have an equal chunk, since each different bit spoils one: comparing only those with an equal chunk
    misses no pair. Each pair is taken at its first equal chunk. The order is arbitrary, but always the same.

    >>> list(near_pairs(np.array([0b0000, 0b0011, 0b1111], dtype=np.uint64), 2))
    [(0, 1, 2), (1, 2, 2)]
    """
    chunks = _chunks(distance + 1)
    for c, chunk in enumerate(chunks):
        order_N = np.argsort(hashes_N & chunk, kind="stable")
        sorted_N = hashes_N[order_N]
        key_N, row_R = sorted_N & chunk, np.arange(len(sorted_N))
        for step in count(1):
            # Rows whose chunk equals that of the row `step` below: fewer at every step, and none at last.
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
    """Masks that cut 64 bits into `many` runs of about equal length.

    >>> [bin(mask).count("1") for mask in map(int, _chunks(5))]
    [12, 13, 13, 13, 13]
    """
    edges = [BITS * c // many for c in range(many + 1)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]
