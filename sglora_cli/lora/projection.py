"""The last linear map of an image encoder, which has no bias, as a site: apart from the others, and for T adapters.

Shapes: T adapters, N images, D embedding, I = in_features of the map, R rank, P numbers of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglora_cli.lora.layout import Layout, Site

ProjectionUpdate = tuple[Tensor, Tensor]
"""What T adapters add to the map: A (T, I, R) and B (T, R, D), scaling included."""


def split_projection(
    layout: Layout, adapters_TP: Tensor, projection: Site | None
) -> tuple[tuple[Layout, Tensor] | None, ProjectionUpdate | None]:
    """The adapters at all other sites, and their update of the projection; None for what the layout does not have.

    Gradients flow back to adapters_TP. Without a projection everything belongs to other sites.
    """
    if projection is None or projection not in layout.sites:
        return (layout, adapters_TP), None
    parts = layout.split(adapters_TP)
    b_TDR, a_TRI = parts[projection.name]
    others = Layout(tuple(site for site in layout.sites if site != projection), layout.rank, layout.alpha)
    update = a_TRI.mT, b_TDR.mT * layout.scaling
    return ((others, others.join(parts)) if others.sites else None), update


def project(x: Tensor, weight_DI: Tensor, update: ProjectionUpdate | None = None) -> Tensor:
    """W x, or W x + B A x of T adapters: x (N, I) of all adapters, or (T, N, I) -> (T, N, D). Builds no B A."""
    y = F.linear(x, weight_DI)
    if update is None:
        return y
    a_TIR, b_TRD = (factor.to(y.dtype) for factor in update)
    x = x.to(y.dtype)  # under autocast the map's result is narrower than its input
    low_TNR = torch.einsum("ni,tir->tnr", x, a_TIR) if x.ndim == 2 else x @ a_TIR
    return y + low_TNR @ b_TRD


@dataclass(frozen=True)
class LastProjection:
    """Where a CLIP has its last projection: the linear `visual_projection`, or the parameter `proj` (I, D)."""

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
        """Make it add the update of one adapter. Returns the function that undoes it."""
        a_IR, b_RD = (factor[0] for factor in update)
        if not self.transposed:
            hook = lambda _, inputs, y: y + (inputs[0] @ a_IR.to(y.dtype) @ b_RD.to(y.dtype))  # noqa: E731
            return self.owner.register_forward_hook(hook).remove
        # An attribute goes before a parameter of its name, which stays as it is.
        attributes = vars(self.owner)
        attributes["proj"] = (self.weight + a_IR @ b_RD).to(self.weight.dtype)
        if isinstance(self.weight, nn.Parameter):
            return lambda: attributes.pop("proj")
        return lambda: attributes.update(proj=self.weight)  # that of an outer block


def last_projection(module: nn.Module, visual: nn.Module) -> LastProjection | None:
    """The last projection of a CLIP of open_clip or transformers, or of its visual encoder; None if it has none."""
    if isinstance(linear := getattr(module, "visual_projection", None), nn.Linear) and linear.bias is None:
        return LastProjection(linear, linear.weight, transposed=False)
    if isinstance(proj := getattr(visual, "proj", None), Tensor) and proj.ndim == 2:
        return LastProjection(visual, proj, transposed=True)
    return None
