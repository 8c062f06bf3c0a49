"""Recall@k by counting ranks. This needs no sorting and no mask, and never holds all scores at once.

The right answers of an image are its own captions, and the right answer of a caption is its own image. If the same
caption also belongs to another image, it is a wrong answer for that image and ties with the right one. A tie counts
against the model. Scoring and counting a chunk takes 26 MiB, plus a few numbers per caption.

Shapes: N images, C captions, D embedding, n images and c captions of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sglora_cli.errors import Mismatch

DIRECTIONS = ("I2T", "T2I")
KS = (1, 5, 10)
_SCORES = 1 << 21  # scores per chunk: counting is fastest while they fit the CPU cache


def ranks_of(image_ND: Tensor, text_CD: Tensor, image_of: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the rank, from 1, of the right answer: each image's best caption (N,) and each caption's image (C,).

    image_ND, text_CD: embeddings, whose dot product is the score.  image_of: the image of each caption.
    A wrong candidate is ranked first if it ties with the right one or if its score is NaN.
    An image without a caption has no right answer, so its rank is beyond all captions.
    Raises Mismatch if there is no image or no caption, or if a caption belongs to no image.

    >>> ranks_of(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.9, 0.3], [0.1, 0.3], [0.2, 0.3]]), [0, 0, 1])
    (tensor([1, 2]), tensor([1, 2, 1]))
    """
    images, captions = len(image_ND), len(text_CD)
    if not images or not captions:
        raise Mismatch("recall needs at least one image and one caption")
    owner_C = torch.as_tensor(list(image_of), dtype=torch.long)
    if len(owner_C) != captions or not 0 <= int(owner_C.min()) <= int(owner_C.max()) < images:
        raise Mismatch(f"image_of must name one of {images} images for each of {captions} captions")
    step = max(16, _SCORES // captions)  # images of a chunk
    width = max(16, _SCORES // step)  # captions of a chunk
    order_C = torch.argsort(owner_C, stable=True)
    size_N = torch.bincount(owner_C, minlength=images)
    parts = list(zip(range(0, images, step), order_C.split([int(p.sum()) for p in size_N.split(step)]), strict=True))
    own_C = torch.full((captions,), float("-inf"))
    for start, rows_c in parts:  # the same product as below, so that equal captions get bitwise equal scores
        for some_c in rows_c.split(width):
            scores_nc = image_ND[start : start + step] @ text_CD[some_c].T
            own_C[some_c] = scores_nc[owner_C[some_c] - start, torch.arange(len(some_c))]
    worst_N = torch.full((images,), float("-inf"))
    best_N = worst_N.scatter_reduce(0, owner_C, own_C.where(~own_C.isnan(), float("-inf")), "amax")
    # Count what is not less: that includes ties and NaN, and ranks a right answer that is NaN last.
    less_N, less_C = torch.zeros(images, dtype=torch.long), torch.zeros(captions, dtype=torch.long)
    for start, rows_c in parts:
        for first in range(0, captions, width):
            some = slice(first, first + width)
            scores_nc = image_ND[start : start + step] @ text_CD[some].T
            here_c = rows_c[(rows_c >= first) & (rows_c < first + width)]
            scores_nc[owner_C[here_c] - start, here_c - first] = float("inf")  # do not count right answers
            less_N[start : start + step] += (scores_nc < best_N[start : start + step, None]).sum(dim=1)
            less_C[some] += (scores_nc < own_C[some]).sum(dim=0)
    i2t_N = 1 + captions - size_N - less_N
    return torch.where(size_N > 0, i2t_N, captions + 1), images - less_C


def hits(
    image_ND: Tensor, text_CD: Tensor, image_of: Sequence[int], ks: Sequence[int] = KS
) -> dict[tuple[str, int], Tensor]:
    """Return (direction, k) -> whether each query finds a right answer among its first k: (N,) or (C,), bool."""
    ranks = dict(zip(DIRECTIONS, ranks_of(image_ND, text_CD, image_of), strict=True))
    return {(d, k): ranks[d] <= k for d in DIRECTIONS for k in ks}


def right_class(image_ND: Tensor, text_CD: Tensor, label_of: Sequence[int]) -> Tensor:
    """Return whether each image's own class scores highest: (N,) bool. A tie or NaN counts as an error.

    text_CD: the embeddings of the classes.  label_of: the class of each image.
    Raises Mismatch for an unknown class or a wrong number of labels.

    >>> right_class(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.eye(2), label_of=[0, 1])
    tensor([ True, False])
    """
    images, classes = len(image_ND), len(text_CD)
    label_N1 = torch.as_tensor(list(label_of), dtype=torch.long)[:, None]
    if not images or len(label_N1) != images or not 0 <= int(label_N1.min()) <= int(label_N1.max()) < classes:
        raise Mismatch(f"label_of must name one of {classes} classes for each of {images} images, at least one")
    scores_NC = image_ND @ text_CD.T
    own_N1 = scores_NC.gather(1, label_N1)
    ahead_N = (~(scores_NC < own_N1)).sum(dim=1)  # includes the own class itself
    return (ahead_N == 1) & ~own_N1[:, 0].isnan()


def percent(hit_Q: Tensor) -> float:
    return 100.0 * float(hit_Q.double().mean())


def chance(images: int, image_of: Sequence[int], ks: Sequence[int] = KS) -> dict[tuple[str, int], float]:
    """Return the score of a random ranking in percent: the probability of a hit without replacement."""
    captions = len(image_of)
    own = torch.bincount(torch.as_tensor(list(image_of)), minlength=images).tolist()
    result = {}
    for k in ks:
        missed = [_all_miss(captions, c, k) for c in own]
        result["I2T", k] = 100.0 * (1 - sum(missed) / images)
        result["T2I", k] = 100.0 * min(1.0, k / images)
    return result


def _all_miss(total: int, right: int, k: int) -> float:
    miss = 1.0
    for i in range(min(k, total)):
        miss *= max(0, total - right - i) / (total - i)
    return miss
