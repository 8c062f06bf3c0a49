"""LoRA.rar's network, which predicts coefficients at every site from the parameters of a sentence's experts.

See the package's docstring for source and shape letters. F numbers of a sketch, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sglora_cli.api import Layout, Material

from . import RarConfig
from .mixture import Asked, Mixer

_SAID = 4
"""Inputs per expert besides its sketch."""


class Coefficients(Mixer):
    """Predicts coefficient = alpha + network output, which is 0 before training."""

    sketch_ESF: Tensor

    def __init__(self, sketch_ESF: Tensor, hidden: int, shrink: float = 0.0) -> None:
        super().__init__()
        _, sites, numbers = sketch_ESF.shape
        self.register_buffer("sketch_ESF", sketch_ESF)
        self.seen = nn.Linear(2 * numbers + _SAID, hidden)
        self.site_SH = nn.Parameter(torch.zeros(sites, hidden))
        self.hidden, self.last = nn.Linear(hidden, hidden), nn.Linear(hidden, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.shrink = shrink

    def added(self, asked: Asked) -> Tensor:
        """Return the network output (T, S, K), which is added to alpha. It is equivariant to the order of experts."""
        own_TKSF = self.sketch_ESF[asked.rows_TK]
        mean_T1SF = (asked.alpha_TK[:, :, None, None] * own_TKSF).sum(dim=1, keepdim=True)
        size_TKS, similarity_TK = own_TKSF.norm(dim=-1), asked.similarity_TK
        apart_TK = similarity_TK - similarity_TK.mean(dim=1, keepdim=True)
        said = (
            asked.alpha_TK[:, :, None].expand_as(size_TKS),
            10 * apart_TK[:, :, None].expand_as(size_TKS),  # cosines of one sentence differ by a tenth
            size_TKS / own_TKSF.shape[-1] ** 0.5,
            torch.cosine_similarity(own_TKSF, mean_T1SF, dim=-1),
        )
        x_TKSX = torch.cat([own_TKSF, mean_T1SF.expand_as(own_TKSF), torch.stack(said, dim=-1)], dim=-1)
        h_TKSH = torch.relu(self.seen(x_TKSX) + self.site_SH)
        return self.last(torch.relu(self.hidden(h_TKSH))).squeeze(-1).mT

    def forward(self, asked: Asked) -> tuple[Tensor, Tensor]:
        return asked.rows_TK, asked.alpha_TK[:, None] + self.added(asked)

    def penalty(self, asked: Asked) -> Tensor:
        return self.shrink * self.added(asked).square().mean()


def sketches(layout: Layout, means_EP: Tensor, width: int) -> Tensor:
    """Return (E, S, width^2), (U^T B)(A V) with fixed random U and V, shared by sites of the same shape.

    Scaled to unit mean square over the experts at each site, so that early and late sites have equal influence.
    """
    fixed: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    found = []
    for site, (b_EOR, a_ERI) in zip(layout.sites, layout.split(means_EP).values(), strict=True):
        shape = site.out_features, site.in_features
        if shape not in fixed:
            rng = torch.Generator().manual_seed(0)
            u_OW, v_IW = (torch.randn(features, width, generator=rng) for features in shape)
            fixed[shape] = u_OW, v_IW
        u_OW, v_IW = fixed[shape]
        sketch_EF = ((u_OW.mT @ b_EOR) @ (a_ERI @ v_IW)).flatten(1)
        found.append(sketch_EF / sketch_EF.square().mean().sqrt().clamp_min(1e-12))
    return torch.stack(found, dim=1)


def untrained(material: Material, config: RarConfig) -> Coefficients:
    """Create a network that predicts alpha."""
    experts = material.experts
    sketch_ESF = sketches(experts.layout, experts.means(), config.sketch)
    with torch.random.fork_rng():
        torch.manual_seed(material.seed)
        return Coefficients(sketch_ESF, config.hidden, config.shrink)


def empty(state: Mapping[str, Tensor], experts: int, sites: int) -> Coefficients:
    """Create a network for the shapes of a state."""
    numbers, hidden = state["sketch_ESF"].shape[-1], len(state["hidden.bias"])
    return Coefficients(torch.zeros(experts, sites, numbers), hidden)
