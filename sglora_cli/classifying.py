"""Classification: the heads that a frozen text encoder gives to classes.

Shapes: C classes, Q prompts, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sglora_cli.contracts import Model
from sglora_cli.errors import Mismatch
from sglora_cli.semantics import check_text


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
