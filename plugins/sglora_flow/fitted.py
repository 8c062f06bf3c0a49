"""A trained path: generate adapters from it, and save it in a pack.

Shapes: P parameters of an adapter, R coordinates, C of the condition, S samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from sglora_cli.api import (
    BadFile,
    Experts,
    Prior,
    Projection,
    SgloraError,
    from_mapping,
    restored_projection,
    text_of,
    text_tensor,
)

from .config import EMBEDDING, NONE, FlowConfig
from .network import Network
from .paths import path_of


@dataclass(frozen=True)
class Standard:
    """Standardisation to mean 0 and mean square 1 over the training data, with one unit for all values, so that the
    proportions of directions are preserved."""

    centre: Tensor
    unit: Tensor
    """(1,)."""

    @classmethod
    def of(cls, rows: Tensor) -> Standard:
        centre, unit = rows.mean(dim=0), torch.ones(1)
        # If all rows are equal, their deviations are rounding errors and would give other rows enormous values.
        for square in (rows.square().mean(), (rows - centre).square().mean()):
            if rows.numel() and float(square) > 1e-10 * float(unit) ** 2:
                unit = square.sqrt().reshape(1)
        return cls(centre, unit)

    def inward(self, numbers: Tensor) -> Tensor:
        return (numbers - self.centre) / self.unit

    def outward(self, numbers: Tensor) -> Tensor:
        return numbers * self.unit + self.centre


def told(config: FlowConfig, scaling: Projection, prior: Prior) -> Tensor:
    """Return the condition (C,) before standardisation."""
    if config.condition == NONE:
        return torch.zeros(0)
    return prior.embedding_D if config.condition == EMBEDDING else scaling.condition(prior)


@dataclass(frozen=True)
class FittedFlow:
    """A trained flow or diffusion."""

    config: FlowConfig
    scaling: Projection
    coordinate: Standard
    variance_R: Tensor
    """The variance of the states' standardised coordinates."""
    condition: Standard
    network: Network

    @property
    def ignores_experts(self) -> bool:
        return self.config.condition != "prior"

    @torch.no_grad()
    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, P)."""
        rng, path = torch.Generator().manual_seed(seed), path_of(self.config)
        c_SC = self.condition.inward(told(self.config, self.scaling, prior)).expand(samples, -1)
        noise_SR = torch.randn(samples, self.scaling.size, generator=rng)

        def field(x_SR: Tensor, time: float) -> Tensor:
            time_S, guidance = torch.full((samples,), time), self.config.guidance
            way_SR: Tensor = self.network(x_SR, time_S, c_SC)
            if guidance != 1:
                free_SR: Tensor = self.network(x_SR, time_S, c_SC, torch.ones(samples, dtype=torch.bool))
                way_SR = free_SR + guidance * (way_SR - free_SR)
            return path.normal(time_S[:, None], x_SR, self.variance_R) + way_SR

        x_SR = path.follow(field, noise_SR, self.config.steps, temperature, rng)
        return self.scaling.outward(self.coordinate.outward(x_SR))

    def tensors(self) -> dict[str, Tensor]:
        config = json.dumps(asdict(self.config), sort_keys=True)
        return {
            **self.scaling.tensors(),
            "config": text_tensor(config),
            "coordinate.centre": self.coordinate.centre,
            "coordinate.unit": self.coordinate.unit,
            "variance": self.variance_R,
            "condition.centre": self.condition.centre,
            "condition.unit": self.condition.unit,
            **{f"network.{name}": value.half() for name, value in self.network.state_dict().items()},
        }


def restore(experts: Experts, tensors: Mapping[str, Tensor]) -> FittedFlow:
    """Recreate a flow from `tensors()`. Raises BadFile if they do not match the pack's layout."""
    size = experts.layout.size
    try:
        config = from_mapping(FlowConfig, json.loads(text_of(tensors["config"])), "its config")
        scaling = restored_projection(tensors, size)
        coordinate, condition = (
            Standard(tensors[f"{one}.centre"].float(), tensors[f"{one}.unit"].float())
            for one in ("coordinate", "condition")
        )
        variance_R, rank = tensors["variance"].float(), scaling.size
        parts = (coordinate.centre, variance_R, coordinate.unit, condition.unit, condition.centre)
        shapes = [tuple(one.shape) for one in parts]
        if shapes != [(rank,), (rank,), (1,), (1,), (condition.centre.numel(),)]:
            raise ValueError(f"its shapes {shapes} do not match {rank} coordinates")
        with torch.device("meta"):
            network = Network(rank, len(condition.centre), config.width, config.blocks)
        state = {k.removeprefix("network."): v.float() for k, v in tensors.items() if k.startswith("network.")}
        network.load_state_dict(state, assign=True)
    except (KeyError, RuntimeError, TypeError, ValueError, SgloraError) as error:
        raise BadFile(f"these are not the tensors of a flow for this pack: {error}", "build the pack again") from None
    return FittedFlow(config, scaling, coordinate, variance_R, condition, network.requires_grad_(False).eval())
