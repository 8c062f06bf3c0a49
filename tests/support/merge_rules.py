"""Four toy experts, and what every merging rule makes of them."""

from __future__ import annotations

import torch
from random_factors import seeded

from sglora_cli.lora.layout import Layout, Site
from sglora_cli.lora.prior import Prior
from sglora_merge import Merge, sglora_generators
from sglora_merge.arithmetic import combined
from sglora_merge.rule import Rule

LAYOUT = Layout((Site("q", 9, 7), Site("k", 5, 11)), rank=2, alpha=3.0)
RULES = {merge.name: merge for merge in sglora_generators() if isinstance(merge, Merge)}


class Experts:
    layout = LAYOUT
    names = ("a", "b", "c", "d")

    def __init__(self) -> None:
        self.mean_EP = torch.randn(4, LAYOUT.size, generator=seeded())

    def means(self, rows=None):
        return self.mean_EP if rows is None else self.mean_EP[list(rows)]


EXPERTS = Experts()
ALPHA = torch.tensor([0.75, 0.25])
PRIOR = Prior(torch.zeros(4), (2, 1), ALPHA, torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.zeros(1))


def generate(name: str, samples: int = 1, seed: int = 0, temperature: float = 1.0) -> torch.Tensor:
    base, _, settings = name.partition(":")
    merge = RULES[base].member(settings) if settings else RULES[base]
    fitted = merge.restore(EXPERTS, {"joint": EXPERTS.mean_EP[3]})
    return fitted.generate(PRIOR, samples, seed, temperature)


def at_one_site(rule: Rule, weights_K: torch.Tensor, x_K: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """One tensor from K of the same shape: (K, ...) -> (...)."""
    return combined(rule, weights_K, [x_K[:, None].clone(memory_format=torch.contiguous_format)], rng)[0][0]


def dense(flat_P: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: (b @ a).double() for name, (b, a) in LAYOUT.split(flat_P).items()}
