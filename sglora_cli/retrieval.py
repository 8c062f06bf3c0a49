"""Recall@k by counting ranks: no sorting, no (images x captions) mask.

Shapes: T adapters, N images, C captions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sglora_cli.errors import Mismatch

DIRECTIONS = ("I2T", "T2I")
KS = (1, 5, 10)


def ranks(scores_NC: Tensor, image_of: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Rank, from 1, of the right answer: for each image its best caption (N,), for each caption its image (C,).

    A wrong candidate that ties with the right one, or whose score is NaN, counts as ranked
    before it. An image without a caption has no right answer: its rank is beyond all captions.

    >>> ranks(torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.3, 0.3]]), image_of=[0, 0, 1])
    (tensor([1, 3]), tensor([1, 2, 1]))
    """
    images, captions = scores_NC.shape
    owner_C = torch.as_tensor(list(image_of), dtype=torch.long)
    if len(owner_C) != captions or (captions and not 0 <= int(owner_C.min()) <= int(owner_C.max()) < images):
        raise Mismatch(f"image_of must name one of {images} images for each of {captions} captions")
    right_NC = torch.arange(images)[:, None] == owner_C
    clean_NC = torch.where(torch.isnan(scores_NC), float("-inf"), scores_NC)
    best_N1 = clean_NC.masked_fill(~right_NC, float("-inf")).amax(dim=1, keepdim=True)
    own_C = clean_NC[owner_C, torch.arange(captions)]
    # "Not less" also counts ties and NaN; a right answer that is NaN has lost to everything.
    i2t_N = 1 + (~(scores_NC < best_N1) & ~right_NC).sum(dim=1)
    t2i_C = 1 + (~(scores_NC < own_C) & ~right_NC).sum(dim=0)
    return torch.where(right_NC.any(dim=1), i2t_N, captions + 1), t2i_C


def recalls(
    image_ND: Tensor, text_CD: Tensor, image_of: Sequence[int], ks: Sequence[int] = KS
) -> dict[tuple[str, int], float]:
    """Recall@k in percent by (direction, k). SG-LoRA (arXiv 2509.10535), METHOD "Measures"."""
    if len(image_ND) == 0 or len(text_CD) == 0:
        raise Mismatch("recall needs at least one image and one caption")
    found = dict(zip(DIRECTIONS, ranks(image_ND @ text_CD.T, image_of), strict=True))
    return {(d, k): 100.0 * float((found[d] <= k).double().mean()) for d in DIRECTIONS for k in ks}


def chance(images: int, image_of: Sequence[int], ks: Sequence[int] = KS) -> dict[tuple[str, int], float]:
    """What a random ranking scores, in percent: the hit probability without replacement."""
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
