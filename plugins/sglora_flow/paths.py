"""Paths from noise to adapters: the points on a path, the training target, and how to follow it.

Flow matching (Lipman et al. 2023, Eq. 20-23, the optimal transport path), t in [0, 1]:

    x_t = t x + (1 - (1 - sigma_min) t) e,    target: the velocity x - (1 - sigma_min) e

Diffusion (Ho et al. 2020), t = 0 .. T - 1, with a_t = prod_s<=t (1 - beta_s):

    x_t = sqrt(a_t) x + sqrt(1 - a_t) e,      target: the noise e

Sampling uses fewer than T steps as in Song et al. 2021 (DDIM, Eq. 12). eta = 1 with T steps is the method of Ho et al.
Temperature multiplies all noise, so 0 follows a single path from the centre of the noise.

For independent normally distributed coordinates, the target has a closed form. The network's output is added to it
(similar to Karras et al. 2022, who add it to the best linear prediction). Directions with little variation, which are
most of them, are therefore correct from the start, and an untrained network samples from that normal distribution.

Shapes: B batch, S samples, R coordinates, T steps of the diffusion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .config import NOISE, FlowConfig

Field = Callable[[Tensor, float], Tensor]
"""(points (S, R), time in [0, 1]) -> the predicted direction (S, R)."""


class Path(Protocol):
    """A path from noise to adapters. The network gets times in [0, 1]."""

    def times(self, count: int, rng: torch.Generator) -> Tensor:
        """Sample random times (B,)."""

    def at(self, time_B: Tensor, x_BR: Tensor, noise_BR: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points (B, R) at these times, and the training targets there."""

    def normal(self, time_B1: Tensor, point_BR: Tensor, variance_R: Tensor) -> Tensor:
        """Return the target (B, R) for normally distributed coordinates with mean 0 and these variances."""

    def constant(self) -> float:
        """Return the squared error per coordinate of the best constant, for coordinates of mean 0 and mean square 1."""

    def follow(self, field: Field, noise_SR: Tensor, steps: int, temperature: float, rng: torch.Generator) -> Tensor:
        """Follow the path from temperature * noise, and return its end (S, R)."""


@dataclass(frozen=True)
class FlowMatching:
    least_noise: float

    def times(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.rand(count, generator=rng)

    def at(self, time_B: Tensor, x_BR: Tensor, noise_BR: Tensor) -> tuple[Tensor, Tensor]:
        kept = 1 - self.least_noise
        t_B1 = time_B[:, None]
        return t_B1 * x_BR + (1 - kept * t_B1) * noise_BR, x_BR - kept * noise_BR

    def normal(self, time_B1: Tensor, point_BR: Tensor, variance_R: Tensor) -> Tensor:
        kept = 1 - self.least_noise
        noise_B1 = 1 - kept * time_B1
        both_BR = time_B1 * variance_R - kept * noise_B1
        return both_BR / (time_B1**2 * variance_R + noise_B1**2).clamp_min(1e-12) * point_BR

    def constant(self) -> float:
        return 1 + (1 - self.least_noise) ** 2

    def follow(self, field: Field, noise_SR: Tensor, steps: int, temperature: float, rng: torch.Generator) -> Tensor:
        """Integrate with the midpoint method, which evaluates the field twice per step."""
        x_SR = temperature * noise_SR
        for n in range(steps):
            middle_SR = x_SR + field(x_SR, n / steps) / (2 * steps)
            x_SR = x_SR + field(middle_SR, (n + 0.5) / steps) / steps
        return x_SR


@dataclass(frozen=True)
class Diffusion:
    count: int
    first: float
    last: float
    eta: float

    def _kept(self) -> Tensor:
        """Return a_t: (T,) in double precision."""
        return (1 - torch.linspace(self.first, self.last, self.count, dtype=torch.float64)).cumprod(0)

    def times(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randint(self.count, (count,), generator=rng) / (self.count - 1)

    def _kept_at(self, time_B1: Tensor) -> Tensor:
        place_B1 = (time_B1 * (self.count - 1)).round().long()
        return self._kept().to(time_B1, non_blocking=True)[place_B1]

    def at(self, time_B: Tensor, x_BR: Tensor, noise_BR: Tensor) -> tuple[Tensor, Tensor]:
        kept_B1 = self._kept_at(time_B[:, None])
        return kept_B1.sqrt() * x_BR + (1 - kept_B1).sqrt() * noise_BR, noise_BR

    def normal(self, time_B1: Tensor, point_BR: Tensor, variance_R: Tensor) -> Tensor:
        kept_B1 = self._kept_at(time_B1)
        return (1 - kept_B1).sqrt() / (kept_B1 * variance_R + 1 - kept_B1) * point_BR

    def constant(self) -> float:
        return 1.0

    def follow(self, field: Field, noise_SR: Tensor, steps: int, temperature: float, rng: torch.Generator) -> Tensor:
        kept_T, x_SR = self._kept().tolist(), temperature * noise_SR
        places = torch.linspace(self.count - 1, 0, min(steps, self.count)).round().long().tolist()
        for t, after in zip(places, [*places[1:], None], strict=True):
            now, then = kept_T[t], 1.0 if after is None else kept_T[after]
            noise = field(x_SR, t / (self.count - 1))
            clean_SR = (x_SR - (1 - now) ** 0.5 * noise) / now**0.5
            fresh = self.eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
            x_SR = then**0.5 * clean_SR + max(0.0, 1 - then - fresh**2) ** 0.5 * noise
            if fresh:
                x_SR = x_SR + temperature * fresh * torch.randn(noise_SR.shape, generator=rng)
        return x_SR


def path_of(config: FlowConfig) -> Path:
    if config.objective == NOISE:
        return Diffusion(config.noise_steps, config.first_noise, config.last_noise, config.fresh_noise)
    return FlowMatching(config.least_noise)
