"""Dropping tokens of a photo, for the `hide` method of a backbone whose stem is a sequence of tokens.

Shapes: N photos, L tokens, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def drop_tokens(stem_NLW: Tensor, share: float, prefix: int, rng: torch.Generator) -> Tensor:
    """Drop a random `share` of each photo's tokens: (N, fewer, W). Keeps the first `prefix` and at least one more.

    PatchDropout (Liu et al. 2023), used as in FLIP.
    """
    count = stem_NLW.shape[1] - prefix
    kept = max(1, round(count * (1 - share)))
    order_NL = torch.rand(len(stem_NLW), count, generator=rng).argsort(dim=1)
    index_NL = order_NL[:, :kept].sort(dim=1).values + prefix
    index_NL = torch.cat([torch.arange(prefix).expand(len(stem_NLW), -1), index_NL], dim=1).to(stem_NLW.device)
    return stem_NLW.gather(1, index_NL[:, :, None].expand(-1, -1, stem_NLW.shape[2]))
