"""The one algorithm of all merging rules. Shapes: K adapters, P numbers of one, S samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sglora_cli.api import Experts, Mismatch, Prior, mix, mix_updates

from .arithmetic import combined
from .rule import Rule
from .spaces import SPACES, scaled, stock_ratio


@dataclass(frozen=True)
class Merged:
    """A rule over one pack's experts. Samples differ only in what is dropped at random."""

    rule: Rule
    experts: Experts
    extra: Mapping[str, Tensor]
    """What the pack has besides experts: its joint adapter."""
    _drawn: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False, compare=False)
    """(samples, seed) to what was drawn of all experts: the sentence does not matter, and dropping takes seconds."""

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """(S, P). With temperature 0 nothing is dropped; any other means the same here."""
        if not self.rule.draws or temperature == 0:
            return self._one(prior).expand(samples, -1).clone()
        if self.rule.experts != "all":
            return self._draw(prior, samples, seed)
        if (samples, seed) not in self._drawn:
            self._drawn[samples, seed] = self._draw(prior, samples, seed)
        return self._drawn[samples, seed].clone()

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def _draw(self, prior: Prior, samples: int, seed: int) -> Tensor:
        weights_K, adapters_KP = self._chosen(prior)
        rng = torch.Generator().manual_seed(seed)
        return torch.stack([merge(self.rule, self.experts, weights_K, adapters_KP, rng) for _ in range(samples)])

    def _one(self, prior: Prior) -> Tensor:
        if self.rule.experts in ("all", "joint"):
            return self._for_any_sentence
        return merge(self.rule.mean(), self.experts, *self._chosen(prior))

    @cached_property
    def _for_any_sentence(self) -> Tensor:
        return merge(self.rule.mean(), self.experts, *self._chosen(None))

    def _chosen(self, prior: Prior | None) -> tuple[Tensor, Tensor]:
        """Weights (K,) and adapters (K, P)."""
        adapters_KP = self._adapters(prior)
        if self.rule.weights == "alpha" and prior is not None:
            return prior.alpha_K, adapters_KP
        count = len(adapters_KP)
        return torch.full((count,), 1 / max(count, 1) if self.rule.weights == "mean" else 1.0), adapters_KP

    def _adapters(self, prior: Prior | None) -> Tensor:
        if self.rule.experts == "joint":
            if "joint" not in self.extra:
                raise Mismatch("this pack has no joint adapter", "build it again")
            return self.extra["joint"][None]
        if self.rule.experts == "none":
            return torch.zeros(0, self.experts.layout.size)
        rows = None if prior is None or self.rule.experts == "all" else prior.rows
        return self.experts.means(rows[:1] if rows and self.rule.experts == "nearest" else rows)


def merge(
    rule: Rule, experts: Experts, weights_K: Tensor, adapters_KP: Tensor, rng: torch.Generator | None = None
) -> Tensor:
    """One adapter (P,) from K. `rng` decides what is dropped, if the rule drops at random."""
    layout, rng = experts.layout, rng or torch.Generator().manual_seed(0)
    parts = layout.split(adapters_KP)
    if rule.linear and rule.space == "factors":
        merged_P = mix(weights_K, adapters_KP)
    elif rule.linear:  # exact and never dense; a weighted sum is the same in aligned numbers
        merged_P = mix_updates(weights_K, adapters_KP, layout)[0]
    else:
        apart = SPACES[rule.space]
        merged_P = layout.join(
            {name: apart(b, a, lambda x: combined(rule, weights_K, x, rng)) for name, (b, a) in parts.items()}
        )
    if rule.ratio == "one" and rule.scale == 1:
        return merged_P
    ratios = {name: stock_ratio(b, a) if rule.ratio == "angle" else 1.0 for name, (b, a) in parts.items()}
    return scaled(layout, merged_P, {name: rule.scale * ratio for name, ratio in ratios.items()})
