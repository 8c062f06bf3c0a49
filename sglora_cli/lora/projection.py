"""The last linear map of an image encoder, without bias, as a site: separated from other sites, for T adapters.

Shapes: T adapters, N images, D embedding, I = in_features of the map, R rank, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglora_cli.lora.layout import Layout, Site

ProjectionUpdate = tuple[Tensor, Tensor]
"""Update of T adapters for the map: A (T, I, R) and B (T, R, D), including scaling."""


def split_projection(
    layout: Layout, adapters_TP: Tensor, projection: Site | None
) -> tuple[tuple[Layout, Tensor] | None, ProjectionUpdate | None]:
    """Split adapters into those at all other sites and their update of the projection. None for missing parts.

    Differentiable to adapters_TP. Without a projection, everything belongs to other sites.
    """
    if projection is None or projection not in layout.sites:
        return (layout, adapters_TP), None
    parts = layout.split(adapters_TP)
    b_TDR, a_TRI = parts[projection.name]
    others = Layout(tuple(site for site in layout.sites if site != projection), layout.rank, layout.alpha)
    update = a_TRI.mT, b_TDR.mT * layout.scaling
    return ((others, others.join(parts)) if others.sites else None), update


def project(x: Tensor, weight_DI: Tensor, update: ProjectionUpdate | None = None) -> Tensor:
    """Compute W x, or W x + B A x for T adapters: shared x (N, I), or (T, N, I), -> (T, N, D). Never builds B A."""
    y = F.linear(x, weight_DI)
    if update is None:
        return y
    a_TIR, b_TRD = (factor.to(y.dtype) for factor in update)
    x = x.to(y.dtype)  # under autocast, the map's result has a lower precision than its input
    low_TNR = torch.einsum("ni,tir->tnr", x, a_TIR) if x.ndim == 2 else x @ a_TIR
    return y + low_TNR @ b_TRD


@dataclass(frozen=True)
class LastProjection:
    """The last projection of a CLIP: the linear `visual_projection`, or the parameter `proj` (I, D)."""

    owner: nn.Module
    weight: Tensor
    transposed: bool

    @property
    def out_features(self) -> int:
        return self.weight.shape[1 if self.transposed else 0]

    @property
    def in_features(self) -> int:
        return self.weight.shape[0 if self.transposed else 1]

    def attach(self, update: ProjectionUpdate) -> Callable[[], None]:
        """Make it add the update of one adapter. Returns a function that removes it."""
        a_IR, b_RD = (factor[0] for factor in update)
        if not self.transposed:
            hook = lambda _, inputs, y: y + (inputs[0] @ a_IR.to(y.dtype) @ b_RD.to(y.dtype))  # noqa: E731
            return self.owner.register_forward_hook(hook).remove
        # An instance attribute takes precedence over a parameter of the same name, which stays unchanged.
        attributes = vars(self.owner)
        attributes["proj"] = (self.weight + a_IR @ b_RD).to(self.weight.dtype)
        if isinstance(self.weight, nn.Parameter):
            return lambda: attributes.pop("proj")
        return lambda: attributes.update(proj=self.weight)  # restores the attribute of an outer block


def last_projection(module: nn.Module, visual: nn.Module) -> LastProjection | None:
    """Return the last projection of a CLIP of open_clip or transformers, or of its visual encoder, or None."""
    if isinstance(linear := getattr(module, "visual_projection", None), nn.Linear) and linear.bias is None:
        return LastProjection(linear, linear.weight, transposed=False)
    if isinstance(proj := getattr(visual, "proj", None), Tensor) and proj.ndim == 2:
        return LastProjection(visual, proj, transposed=True)
    return None
