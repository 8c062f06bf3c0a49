"""The algorithm of all merging rules. Shapes: K adapters, P parameters of one, S samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from sglora_cli.api import Experts, Layout, Mismatch, Prior, mix, mix_updates

from .arithmetic import combined
from .dense import Factors
from .rule import Rule
from .spaces import AT_ONCE, SPACES, batches, scaled, stock_ratio


@dataclass(frozen=True)
class Merged:
    """A merging rule over the experts of one pack. Samples differ only in what is dropped at random."""

    rule: Rule
    experts: Experts
    extra: Mapping[str, Tensor]
    """Tensors of the pack besides its experts: the joint adapter."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """The device for rules that are not weighted sums."""
    _drawn: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False, compare=False)
    """(samples, seed) -> cached samples over all experts. They do not depend on the sentence, and take seconds."""

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, P). At temperature 0 nothing is dropped. All other temperatures are equivalent."""
        if not self.rule.draws or temperature == 0:
            return self._one(prior).expand(samples, -1).clone()
        if self.rule.experts != "all":
            return self._draw(prior, samples, seed)
        if (samples, seed) not in self._drawn:
            self._drawn[samples, seed] = self._draw(prior, samples, seed)
        return self._drawn[samples, seed].clone()

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def on_device(self, device: torch.device) -> Merged:
        """Return the same rule computing on a device. Devices without float64, such as MPS, are ignored."""
        return replace(self, device=device, _drawn={}) if device.type in AT_ONCE else self

    def _draw(self, prior: Prior, samples: int, seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        return torch.stack([self._merge(self.rule, prior, rng) for _ in range(samples)])

    def _one(self, prior: Prior) -> Tensor:
        if self.rule.experts in ("all", "joint"):
            return self._for_any_sentence
        return self._merge(self.rule.mean(), prior)

    @cached_property
    def _for_any_sentence(self) -> Tensor:
        return self._merge(self.rule.mean(), None)

    def _merge(self, rule: Rule, prior: Prior | None, rng: torch.Generator | None = None) -> Tensor:
        device = torch.device("cpu") if rule.linear else self.device
        weights_K, adapters_KP = (x.to(device) for x in self._chosen(prior))
        return merge(rule, self.experts, weights_K, adapters_KP, rng).cpu()

    def _chosen(self, prior: Prior | None) -> tuple[Tensor, Tensor]:
        """Return weights (K,) and adapters (K, P)."""
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
    """Merge K adapters into one (P,) on their device. `rng`, on the CPU, draws what the rule drops at random.

    Sites are merged in batches of S. In space `updates` a batch takes 4 bytes for each of its K S O I numbers, plus 30
    bytes for each of its S O I. The former number is at most `spaces.AT_ONCE`, or that of a single site. 10 adapters
    of CLIP ViT-L/14 take 70 MB on a CPU and about 1 GB on a GPU.
    """
    if not len(adapters_KP):
        return torch.zeros(experts.layout.size)
    layout, rng = experts.layout, rng or torch.Generator().manual_seed(0)
    parts = layout.split(adapters_KP)
    if rule.linear and rule.space == "factors":
        merged_P = mix(weights_K, adapters_KP)
    elif rule.linear:  # exact without dense matrices; space `aligned` gives the same weighted sum
        merged_P = mix_updates(weights_K, adapters_KP, layout)[0]
    else:
        merged_P = layout.join(_merged(rule, layout, weights_K, parts, rng))
    if rule.ratio == "one" and rule.scale == 1:
        return merged_P
    ratios = {name: stock_ratio(b, a) if rule.ratio == "angle" else 1.0 for name, (b, a) in parts.items()}
    return scaled(layout, merged_P, {name: rule.scale * ratio for name, ratio in ratios.items()})


def _merged(
    rule: Rule, layout: Layout, weights_K: Tensor, parts: Mapping[str, Factors], rng: torch.Generator
) -> dict[str, Factors]:
    """Apply a rule that is not a weighted sum at each site."""

    def combine(*stacks: Tensor) -> list[Tensor]:
        return combined(rule, weights_K, stacks, rng)

    space, merged = SPACES[rule.space], dict[str, Factors]()
    for names in batches(layout, space, len(weights_K), weights_K.device, rule.draws):
        b_KSOR, a_KSRI = (torch.stack(stack, dim=1) for stack in zip(*(parts[n] for n in names), strict=True))
        merged |= zip(names, zip(*space.merge(b_KSOR, a_KSRI, combine), strict=True), strict=True)
    return merged
