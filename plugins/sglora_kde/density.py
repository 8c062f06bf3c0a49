"""A kernel density over the coordinates of states, and its samples. See the package's docstring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sglora_cli.api import (
    BadFile,
    Experts,
    Material,
    Prior,
    Projection,
    Scaling,
    restored_projection,
    state_coordinates,
    state_projection,
)

from . import KdeConfig, KdeSentenceConfig


@dataclass(frozen=True)
class FittedKde:
    """The states' coordinates and their weights."""

    scaling: Projection
    state_NR: Tensor = field(repr=False)
    sentence_TD: Tensor = field(repr=False)
    bandwidth: float
    tau: float
    """0 means equal weights for all states, with each coordinate sampled separately."""
    ignores_experts: bool = True

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, P): the mean plus temperature times a sample's deviation from it."""
        rng, shape = torch.Generator().manual_seed(seed), (samples, self.scaling.size)
        weight_N = self.weights(prior)
        mean_R = weight_N @ self.state_NR
        deviation_R = (weight_N @ (self.state_NR - mean_R) ** 2).sqrt()
        width = self.bandwidth * float(weight_N.square().sum()) ** 0.2  # Scott: (effective number of states) ** -1/5
        chosen = torch.multinomial(weight_N, shape[0] if self.tau else shape[0] * shape[1], True, generator=rng)
        state_SR = self.state_NR[chosen] if self.tau else self.state_NR.gather(0, chosen.view(shape))
        noise_SR = width * deviation_R * torch.randn(shape, generator=rng)
        own_SR = (state_SR - mean_R + noise_SR) / (1 + width**2) ** 0.5
        return self.scaling.outward(mean_R + temperature * own_SR)

    def weights(self, prior: Prior) -> Tensor:
        """Return weights (N,) with sum 1."""
        count = len(self.state_NR)
        if not self.tau:
            return torch.full((count,), 1 / count)
        weight_T = torch.softmax(self.sentence_TD @ prior.embedding_D / self.tau, dim=0)
        return weight_T.repeat_interleave(count // len(weight_T)) / (count // len(weight_T))

    def tensors(self) -> dict[str, Tensor]:
        kernels = torch.tensor([self.bandwidth, self.tau])
        own = {"states": self.state_NR, "sentences": self.sentence_TD, "kernels": kernels}
        return {**self.scaling.tensors(), **own}


def fit(material: Material, config: KdeConfig) -> tuple[FittedKde, dict[str, Any]]:
    """Store the coordinates of the states, without any training. Also returns measurements."""
    whole, states = Scaling.of(material.experts), material.states_of_task
    scaling, kept = state_projection(material, whole, config.projection, config.energy)
    state_NR, spread, dropped = state_coordinates(material, scaling)
    most = max(1, round(config.best * states))
    if most < states:
        best_TM = [material.recall(t, material.states(t)).topk(most).indices for t in range(len(material.tasks))]
        state_NR = torch.cat([state_NR[t * states + best_M] for t, best_M in enumerate(best_TM)])
    sentence_TD = torch.stack([prior.embedding_D.float() for prior in material.priors])
    tau = config.tau if isinstance(config, KdeSentenceConfig) else 0.0
    return FittedKde(scaling, state_NR, sentence_TD, config.bandwidth, tau), {
        "trained_on": {"tasks": len(material.tasks), "states": most},
        "spread_per_number": spread,
        "dropped_per_number": dropped,
        "projection": {"numbers": scaling.size, "kept_share": kept},
    }


def restore(experts: Experts, tensors: Mapping[str, Tensor]) -> FittedKde:
    """Raises BadFile if the tensors do not match the pack's layout."""
    try:
        scaling = restored_projection(tensors, experts.layout.size)
        state_NR, sentence_TD, kernels = (tensors[name].float() for name in ("states", "sentences", "kernels"))
        bandwidth, tau = kernels.tolist()
        if sentence_TD.ndim != 2 or not len(state_NR) or not len(sentence_TD) or len(state_NR) % len(sentence_TD):
            raise ValueError(f"it has {len(state_NR)} states, but sentences of shape {list(sentence_TD.shape)}")
        if state_NR.shape[1] != scaling.size:
            raise ValueError(f"its states have {state_NR.shape[1]} coordinates, not {scaling.size}")
        if not (bandwidth >= 0 and tau >= 0 and all(bool(torch.isfinite(x).all()) for x in (state_NR, sentence_TD))):
            raise ValueError("it has invalid or non-finite numbers")
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise BadFile(f"not a kernel density of this pack: {error}", "build the pack again") from None
    return FittedKde(scaling, state_NR, sentence_TD, bandwidth, tau)
