"""The update of an image encoder's last map that removes what the candidates of a task share.

All photos of a task show what its sentence names, and all its captions name it. In an image embedding v, the component
along the direction u of the task's captions is nearly the same for every photo and adds the same to every score of a
caption. Where it differs, it shows how well a photo fits the task, not which photo it is. It is therefore removed, and
the mean embedding c of the task's photos is subtracted, as in mean-centring:

    v' = (I - strength * u u^T) (v - common * c)                                          (1)

The task's captions and photos are unseen. Their means are predicted from the sentence d* over the tasks t that the pack
has seen, by ridge regression of their means Y_t on their sentences:

    y(d*) = mean Y + sum_t w_t (Y_t - mean Y),   w = K (K + ridge)^-1 at d*,   K the products of centred sentences  (2)

The last map of the image encoder is linear, v ~ W p. Equation (1) is therefore an update of W of rank 2, as exact as
the approximation of the length ||W p|| by a linear function r . p:

    B A = -strength * u (u^T W) - common * (I - strength * u u^T) c r^T                    (3)

Shapes: S sentences, T seen tasks, D embedding, I inputs of W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sglora_cli.errors import Mismatch
from sglora_cli.lora.layout import Site, text_of, text_tensor

STRENGTH, COMMON, RIDGE = 0.8, 0.8, 0.3
"""Tuned on seen tasks of the starter pack, predicting each without itself (docs/results-appendix.md)."""


def unit(direction_SD: Tensor) -> Tensor:
    """Normalise rows. Zero rows stay zero."""
    return direction_SD / direction_SD.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def ridge_weights(sentences_TD: Tensor, sentence_SD: Tensor, ridge: float) -> Tensor:
    """Return (S, T) double, the weights w of (2). They are 0 for the mean sentence.

    >>> ridge_weights(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), 1e-6).round(decimals=3)
    tensor([[ 0.5000, -0.5000]], dtype=torch.float64)
    """
    sentences_TD = sentences_TD.double()
    mean_D = sentences_TD.mean(dim=0)
    centred_TD = sentences_TD - mean_D
    products_TT = centred_TD @ centred_TD.T + ridge * torch.eye(len(centred_TD), dtype=torch.float64)
    weight_TS: Tensor = torch.linalg.solve(products_TT, centred_TD @ (sentence_SD.double() - mean_D).T)
    return weight_TS.T


def predicted(weight_ST: Tensor, moment_TD: Tensor) -> Tensor:
    """Return (S, D) double, the predicted means y(d*) of unseen tasks, by (2)."""
    moment_TD = moment_TD.double()
    mean_D = moment_TD.mean(dim=0)
    return mean_D + weight_ST @ (moment_TD - mean_D)


class Seen(Protocol):
    """Statistics of seen tasks, as in `Moments` of plugin/values.py for a backbone with a projection."""

    @property
    def sentences_TD(self) -> Tensor: ...

    @property
    def images_TD(self) -> Tensor: ...

    @property
    def captions_TD(self) -> Tensor: ...

    @property
    def projection_DI(self) -> Tensor | None: ...

    @property
    def length_I(self) -> Tensor | None: ...


_KEPT = ("sentences_TD", "images_TD", "captions_TD", "projection_DI", "length_I")


@dataclass(frozen=True)
class SeenMeans:
    """The statistics of seen tasks (a `Seen`) that a generator stores to make the update of any sentence."""

    projection: Site
    sentences_TD: Tensor
    images_TD: Tensor
    captions_TD: Tensor
    projection_DI: Tensor
    length_I: Tensor

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return everything that `restored` needs, in float16."""
        kept = {f"{prefix}.{name}": getattr(self, name).half() for name in _KEPT}
        return {**kept, f"{prefix}.site": text_tensor(self.projection.name)}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], prefix: str) -> SeenMeans:
        """Recreate the statistics from `tensors()`. Raises KeyError or ValueError for other tensors."""
        kept = {name: tensors[f"{prefix}.{name}"].float() for name in _KEPT}
        shapes = [tuple(one.shape) for one in kept.values()]
        tasks, into = (shape[:1] for shape in (shapes[0], shapes[-1]))
        width = shapes[3][:1]
        if shapes != [(*tasks, *width)] * 3 + [(*width, *into), into] or not all(map(len, (tasks, into, width))):
            raise ValueError(f"the means of seen tasks have inconsistent shapes {shapes}")
        if not all(bool(torch.isfinite(one).all()) for one in kept.values()):
            raise ValueError("the means of seen tasks have numbers that are not finite")
        return cls(Site(text_of(tensors[f"{prefix}.site"]), *shapes[3]), **kept)


def removal(
    seen: Seen,
    sentence_SD: Tensor,
    *,
    strength: float = STRENGTH,
    common: float = COMMON,
    captions: float = 1.0,
    sentence: float = 1.0,
    ridge: float = RIDGE,
) -> tuple[Tensor, Tensor]:
    """Return B (S, D, 2) and A (S, 2, I) of (3) in double precision. With common = 0, the rank is 1.

    u combines the predicted mean caption and the sentence minus the mean of the sentences. Each is normalised and
    weighted, and the sum is normalised. The prediction is a safe estimate, and the sentence adds what is specific to
    the task. Raises Mismatch for the mean sentence without captions, which has no direction.
    """
    assert seen.projection_DI is not None
    assert seen.length_I is not None
    sentence_SD = sentence_SD.double()
    weight_ST = ridge_weights(seen.sentences_TD, sentence_SD, ridge)
    direction_SD = torch.zeros_like(sentence_SD)
    if captions:
        direction_SD += captions * unit(predicted(weight_ST, seen.captions_TD))
    if sentence:
        direction_SD += sentence * unit(sentence_SD - seen.sentences_TD.double().mean(dim=0))
    if not bool(direction_SD.norm(dim=1).all()):
        raise Mismatch("the sentence equals the mean of all sentences, so it has no direction", "describe another task")
    u_SD = unit(direction_SD)
    b_columns, a_rows = [-strength * u_SD], [u_SD @ seen.projection_DI.double()]
    if common:
        common_SD = predicted(weight_ST, seen.images_TD)
        along_S1 = (u_SD * common_SD).sum(dim=1, keepdim=True)
        b_columns.append(-common * (common_SD - strength * u_SD * along_S1))
        a_rows.append(seen.length_I.double().expand(len(u_SD), -1))
    return torch.stack(b_columns, dim=2), torch.stack(a_rows, dim=1)
