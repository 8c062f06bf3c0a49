"""MoLE's gates, which weigh all experts at every site. See the package's docstring for source and shape letters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sglora_cli.api import Material

from . import MoleConfig
from .mixture import Asked, Mixer

COLDEST, HOTTEST = 1.0, 3.0
"""The range of temperatures in the source's code."""


class Gates(Mixer):
    """gate_s = softmax((weight_s x + bias_s) / temperature_s), with x the centred sentence of unit mean square."""

    centre_D: Tensor
    unit: Tensor

    def __init__(self, sites: int, experts: int, width: int, balance: float = 0.0) -> None:
        super().__init__()
        self.weight_SED = nn.Parameter(torch.zeros(sites, experts, width))
        self.bias_SE = nn.Parameter(torch.zeros(sites, experts))
        self.temperature_S = nn.Parameter(torch.full((sites,), COLDEST))
        self.register_buffer("centre_D", torch.zeros(width))
        self.register_buffer("unit", torch.ones(1))
        self.balance = balance

    def logits(self, embedding_TD: Tensor) -> Tensor:
        """(T, S, E)"""
        x_TD = (embedding_TD - self.centre_D) / self.unit
        logit_TSE = torch.einsum("td,sed->tse", x_TD, self.weight_SED) + self.bias_SE
        # Clamped without stopping the gradient, so that a temperature outside the range can return.
        kept_S = self.temperature_S + (self.temperature_S.clamp(COLDEST, HOTTEST) - self.temperature_S).detach()
        return logit_TSE / kept_S[:, None]

    def forward(self, asked: Asked) -> tuple[Tensor, Tensor]:
        logit_TSE = self.logits(asked.embedding_TD)
        every_E = torch.arange(logit_TSE.shape[-1], device=logit_TSE.device)
        gate_TSE = logit_TSE.softmax(dim=-1)
        return every_E.expand(len(gate_TSE), -1), gate_TSE

    def penalty(self, asked: Asked) -> Tensor:
        """Return the balance loss. Its minimum, 0, is reached if experts are used equally over sites and sentences."""
        use_E = self.logits(asked.embedding_TD).softmax(dim=-1).mean(dim=(0, 1))
        return -self.balance * (use_E * len(use_E)).log().mean()


def untrained(material: Material, config: MoleConfig) -> Gates:
    """Create gates that weigh all experts equally."""
    sentences_TD = material.pool.sentences_TD.float()
    experts = material.experts
    gates = Gates(len(experts.layout.sites), len(experts.names), sentences_TD.shape[1], config.balance)
    gates.centre_D.copy_(sentences_TD.mean(dim=0))
    gates.unit.fill_(float((sentences_TD - gates.centre_D).square().mean().sqrt().clamp_min(1e-6)))
    return gates


def empty(state: Mapping[str, Tensor], experts: int, sites: int) -> Gates:
    """Create gates for the shapes of a state, which determines the embedding width."""
    return Gates(sites, experts, len(state["centre_D"]))
