"""TIES and DARE on a stack of tensors, in the conventions of PEFT and mergekit.

They differ by design:

| | PEFT | mergekit |
|---|---|---|
| trimmed to | int(density n) numbers | at least one |
| after dropping | divided by the density | rescaled to the L1 norm from before |
| signs are elected by | the unweighted tensors | the weighted tensors |
| divided by | the number of agreeing tensors | their weight for TIES, nothing for DARE-TIES |

A sum of zero counts as positive in both. With weights of 1, TIES is the same in both.
TIES: Yadav et al. 2023. DARE: Yu et al. 2024. Shapes: K adapters, ... anything.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .rule import Rule

NOTHING = 1e-7
"""mergekit's bound: a tensor whose L1 norm is below it is not rescaled."""


def pruned(rule: Rule, x: Tensor, rng: torch.Generator) -> Tensor:
    """One adapter's tensor with its smallest, or random, numbers at zero."""
    if rule.prune == "none" or rule.density >= 1:
        return x
    if rule.prune == "magnitude":
        return _trimmed(x, max(int(rule.density * x.numel()), rule.convention == "mergekit"))
    kept = x * torch.bernoulli(torch.full_like(x, rule.density), generator=rng)
    if rule.convention == "peft":
        return kept / rule.density if rule.density else kept
    before, after = x.abs().sum(), kept.abs().sum()
    return kept if min(before, after) < NOTHING else kept * (before / after)


def _trimmed(x: Tensor, count: int) -> Tensor:
    """The `count` largest numbers by magnitude; of equal ones at the border the first stay."""
    size = x.abs().flatten()
    if count < 1:
        return torch.zeros_like(x)
    border = size.kthvalue(len(size) - count + 1).values  # half the time of topk
    kept = size >= border
    if surplus := int(kept.sum()) - count:
        kept[(size == border).nonzero()[-surplus:]] = False
    return x * kept.view_as(x)


def combined(rule: Rule, weights_K: Tensor, stack_K: Tensor, rng: torch.Generator) -> Tensor:
    """One tensor from K of the same shape: (K, ...) -> (...)."""
    stack_K = torch.stack([pruned(rule, x, rng) for x in stack_K])
    weights = weights_K.view(-1, *[1] * (stack_K.dim() - 1))
    weighted_K = weights * stack_K
    if rule.elect == "none":
        return weighted_K.sum(dim=0)
    judged_K = stack_K if rule.convention == "peft" else weighted_K
    votes = (judged_K if rule.elect == "total" else judged_K.sign()).sum(dim=0)
    agrees_K = judged_K.sign() == torch.where(votes >= 0, 1, -1)
    total = (weighted_K * agrees_K).sum(dim=0)
    if rule.convention == "peft":
        return total / agrees_K.sum(dim=0).clamp_min(1)
    if rule.prune == "random":
        return total
    divisor = (weights * agrees_K).sum(dim=0)
    return total / torch.where(divisor == 0, 1.0, divisor)
