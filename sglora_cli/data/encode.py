"""Encode texts, images and class heads in batches, with and without adapters.

Shapes: N texts or images, C captions or classes, S or T adapters, D embedding width, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.data.ahead import looked_at
from sglora_cli.errors import Mismatch
from sglora_cli.files.tensor_rows import TensorRows
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import Query
from sglora_cli.plugin.contracts import ChecksText, Model
from sglora_cli.plugin.sites import is_projection_alone
from sglora_cli.plugin.values import TaskTensors


def mean_query(weights_N: Sequence[float], queries: Sequence[Query]) -> Query:
    """Combine several sentences into one query by weight. Raises Mismatch if their embeddings cancel out."""
    embedding_D = mean_direction(weights_N, torch.stack([one.embedding_D for one in queries]))
    return Query(embedding_D, mean_direction(weights_N, torch.stack([one.meaning_W for one in queries])))


def check_text(model: Model, text: str) -> None:
    """Raise Mismatch if the model reports that its `encode_text` would truncate the text."""
    if isinstance(model, ChecksText):
        model.check_text(text)


IMAGES_AT_ONCE = 256
ALONE = 64
"""Adapters per forward pass, for adapters of the last projection alone."""


@torch.no_grad()
def encode_images(
    model: Model, layout: Layout, task: TaskTensors, adapters_SP: Tensor, at_once: int = IMAGES_AT_ONCE
) -> Tensor:
    """Encode every image with every adapter: (S, N, D), with the work of about `at_once` images per forward pass.

    Adapters of the last projection alone share the computation before it.
    """
    images = len(task.stem_N)
    several = ALONE if is_projection_alone(model, layout) else max(1, at_once // max(1, images))
    parts = []
    for first in range(0, len(adapters_SP), several):
        some_SP = adapters_SP[first : first + several]
        whole = [
            model.encode_image(task.stem_N[i : i + at_once], layout, some_SP).cpu() for i in range(0, images, at_once)
        ]
        parts.append(torch.cat(whole, dim=1))
    return torch.cat(parts)


@torch.no_grad()
def encode_each(model: Model, layout: Layout, task: TaskTensors, adapters_NP: Tensor, at_once: int = 64) -> Tensor:
    """Encode each image with its own adapter: (N, D), with `at_once` images per forward pass."""
    own = (slice(first, first + at_once) for first in range(0, len(adapters_NP), at_once))
    parts = [model.encode_image(task.stem_N[some, None], layout, adapters_NP[some]).cpu()[:, 0] for some in own]
    return torch.cat(parts)


def class_heads(model: Model, classes: Sequence[str], prompts: Sequence[str]) -> Tensor:
    """Return zero-shot heads, unit vectors (C, D): the embedding of the prompt with {class} filled in.

    Several prompts are averaged and normalised again, as in CLIP (Radford et al. 2021, 3.1.4). Raises Mismatch for a
    prompt that the text encoder would truncate.
    """
    texts = [prompt.replace("{class}", name) for name in classes for prompt in prompts]
    for text in texts:
        try:
            check_text(model, text)
        except Mismatch as error:
            raise Mismatch(f"prompt {text[:60]!r}: {error.message}", error.hint) from None
    embedding_CQD = model.encode_text(texts).float().reshape(len(classes), len(prompts), -1)
    return embedding_CQD[:, 0] if len(prompts) == 1 else torch.nn.functional.normalize(embedding_CQD.mean(1), dim=-1)


_BATCH = 32


def mean_direction(weights_N: Sequence[float], unit_ND: Tensor) -> Tensor:
    """Return the normalised weighted mean of unit vectors: (D,). A single vector is returned unchanged.

    Raises Mismatch if the vectors cancel out.

    >>> mean_direction([3, 1], torch.eye(2))
    tensor([0.9487, 0.3162])
    """
    if len(unit_ND) == 1:
        return unit_ND[0]
    weights = torch.tensor(weights_N, dtype=torch.float64)
    sum_D = (weights / weights.sum()) @ unit_ND.double()
    if float(sum_D.norm()) < 1e-6:
        raise Mismatch("the embeddings of the sentences cancel each other out", "describe one task")
    return (sum_D / sum_D.norm()).float()


@torch.no_grad()
def image_embeddings(
    model: Model, stem_N: Tensor | TensorRows, layout: Layout | None = None, flat_P: Tensor | None = None
) -> Tensor:
    """Return unit embeddings (N, D) of images from their stems, with one adapter or none. Stems are read in batches."""
    rows, adapter_1P = range(len(stem_N)), None if flat_P is None else flat_P[None].to(model.device)
    stems = (stem_N[list(rows[i : i + _BATCH])] for i in range(0, len(rows), _BATCH))
    parts = [model.encode_image(stem, layout, adapter_1P).float().cpu() for stem in stems]
    return torch.cat([part if adapter_1P is None else part[0] for part in parts])


@torch.no_grad()
def visual_embedding(model: Model, images: Sequence[Path]) -> Tensor:
    """Return d* of photos: the normalised mean (D,) of their image embeddings without an adapter."""
    stems = looked_at(model, [(path, "") for path in images])
    parts = [model.encode_image(stem).float().cpu() for stem in stems]
    return mean_direction([1.0] * len(images), torch.cat(parts))
