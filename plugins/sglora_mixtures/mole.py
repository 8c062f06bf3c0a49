"""The gates of MoLE: at every site, how much of each expert. See the package's docstring for source and letters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sglora_cli.api import Material

from . import MoleConfig
from .mixture import Asked, Mixer

COLDEST, HOTTEST = 1.0, 3.0
"""Between these the source's code keeps temperatures."""


class Gates(Mixer):
    """gate_s = softmax((weight_s x + bias_s) / temperature_s), x the sentence centred and of unit mean square."""

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
        # Past its ends a temperature still learns, so that it can come back.
        kept_S = self.temperature_S + (self.temperature_S.clamp(COLDEST, HOTTEST) - self.temperature_S).detach()
        return logit_TSE / kept_S[:, None]

    def forward(self, asked: Asked) -> tuple[Tensor, Tensor]:
        logit_TSE = self.logits(asked.embedding_TD)
        every_E = torch.arange(logit_TSE.shape[-1], device=logit_TSE.device)
        gate_TSE = logit_TSE.softmax(dim=-1)
        return every_E.expand(len(gate_TSE), -1), gate_TSE

    def penalty(self, asked: Asked) -> Tensor:
        """Least, 0, where experts are used alike over sites and sentences."""
        use_E = self.logits(asked.embedding_TD).softmax(dim=-1).mean(dim=(0, 1))
        return -self.balance * (use_E * len(use_E)).log().mean()


def untrained(material: Material, config: MoleConfig) -> Gates:
    """All gates alike."""
    sentences_TD = material.pool.sentences_TD.float()
    experts = material.experts
    gates = Gates(len(experts.layout.sites), len(experts.names), sentences_TD.shape[1], config.balance)
    gates.centre_D.copy_(sentences_TD.mean(dim=0))
    gates.unit.fill_(float((sentences_TD - gates.centre_D).square().mean().sqrt().clamp_min(1e-6)))
    return gates


def empty(state: Mapping[str, Tensor], experts: int, sites: int) -> Gates:
    """Of a state's shapes. Only the file knows how wide an embedding is."""
    return Gates(sites, experts, len(state["centre_D"]))
