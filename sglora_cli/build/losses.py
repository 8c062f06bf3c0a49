"""The losses of a task's adapter, on pairs of photos and captions or on photos and their classes.

Shapes: T tasks, N photos of a step (padded), C classes (padded), D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor


def contrastive_loss(image_TND: Tensor, text_TND: Tensor, real_TN: Tensor, scale: float) -> Tensor:
    """Return the symmetric image-text loss of each task: (T,). Padding and repeated captions are not negatives."""
    logits_TNN = scale * image_TND @ text_TND.mT
    same_TNN = (text_TND @ text_TND.mT) > 1 - 1e-5
    other = ~torch.eye(logits_TNN.shape[-1], dtype=torch.bool, device=logits_TNN.device)
    hidden = (same_TNN & other) | ~real_TN[:, None, :] | ~real_TN[:, :, None]
    logits_TNN = logits_TNN.masked_fill(hidden & other, float("-inf"))
    right_TN = logits_TNN.diagonal(dim1=1, dim2=2)
    per_TN = (logits_TNN.logsumexp(dim=2) + logits_TNN.logsumexp(dim=1)) / 2 - right_TN
    return (per_TN * real_TN).sum(dim=1) / real_TN.sum(dim=1)


def classification_loss(
    image_TND: Tensor, own_TND: Tensor, real_TN: Tensor, head_TCD: Tensor, real_TC: Tensor, scale: float
) -> Tensor:
    """Return the cross-entropy of each task over its classes: (T,). own_TND are the heads of the photos' classes.

    Padded classes and photos do not count.
    """
    logits_TNC = (scale * image_TND @ head_TCD.mT).masked_fill(~real_TC[:, None, :], float("-inf"))
    per_TN = logits_TNC.logsumexp(dim=2) - scale * (image_TND * own_TND).sum(dim=2)
    return (per_TN * real_TN).sum(dim=1) / real_TN.sum(dim=1)
