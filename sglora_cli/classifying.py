"""Classification: the heads a frozen text encoder gives to classes, and how often they are right.

Shapes: C classes, Q prompts, N images, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sglora_cli.contracts import Model
from sglora_cli.errors import Mismatch
from sglora_cli.semantics import check_text

ACCURACY = ("ACC", 1)
"""Direction and k of a row that is an accuracy."""


def class_heads(model: Model, classes: Sequence[str], prompts: Sequence[str]) -> Tensor:
    """Zero-shot heads, unit vectors (C, D): the embedding of every prompt with {class} filled in.

    Of several prompts the mean, normalised again, as CLIP does (Radford et al. 2021, 3.1.4). Raises Mismatch for a
    prompt that the text encoder would cut.
    """
    texts = [prompt.replace("{class}", name) for name in classes for prompt in prompts]
    for text in texts:
        try:
            check_text(model, text)
        except Mismatch as error:
            raise Mismatch(f"prompt {text[:60]!r}: {error.message}", error.hint) from None
    embedding_CQD = model.encode_text(texts).float().reshape(len(classes), len(prompts), -1)
    return embedding_CQD[:, 0] if len(prompts) == 1 else torch.nn.functional.normalize(embedding_CQD.mean(1), dim=-1)


def accuracy(image_ND: Tensor, text_CD: Tensor, label_of: Sequence[int]) -> float:
    """Images whose own class scores highest, in percent. A tie is an error of the model, and so is NaN.

    >>> accuracy(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.eye(2), label_of=[0, 1])
    50.0
    """
    images, classes = len(image_ND), len(text_CD)
    label_N = torch.as_tensor(list(label_of), dtype=torch.long)
    if not images or len(label_N) != images or not 0 <= int(label_N.min()) <= int(label_N.max()) < classes:
        raise Mismatch(f"label_of must name one of {classes} classes for each of {images} images, at least one")
    scores_NC = image_ND @ text_CD.T
    own_NC = torch.arange(classes) == label_N[:, None]
    less_NC = scores_NC < scores_NC.gather(1, label_N[:, None])  # false for ties and NaN
    right_N = (less_NC | (own_NC & ~scores_NC.isnan())).all(dim=1)
    return 100.0 * float(right_N.double().mean())
