"""Merging rules that are no weighted sums, by their definition: one site after the other, by dense SVDs.

Shapes: K adapters, O out_features, I in_features, R rank, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sglora_cli.lora.layout import Layout
from sglora_merge.rule import Rule


def by_svd(dense_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Balanced factors of the best approximation, padded with zeros to the rank: B (O, R), A (R, I)."""
    u, s, vh = torch.linalg.svd(dense_OI.double(), full_matrices=False)
    root = s[:rank].sqrt()
    b, a = u[:, :rank] * root, root[:, None] * vh[:rank]
    more = rank - len(root)
    return torch.nn.functional.pad(b, (0, more)).float(), torch.nn.functional.pad(a, (0, 0, 0, more)).float()


def obvious_merge(
    rule: Rule,
    layout: Layout,
    weights_K: Tensor,
    adapters_KP: Tensor,
    seed: int = 0,
    cut: Callable[[Tensor, int], tuple[Tensor, Tensor]] = by_svd,
) -> Tensor:
    """One adapter (P,). cut: dense matrix, rank -> factors."""
    rng = torch.Generator().manual_seed(seed)
    parts = {}
    for name, (b_KOR, a_KRI) in layout.split(adapters_KP).items():
        if rule.space == "factors":
            a_RI = elected(rule, weights_K, pruned(rule, a_KRI, rng))
            parts[name] = elected(rule, weights_K, pruned(rule, b_KOR, rng)), a_RI
        elif rule.space == "updates":
            merged_OI = elected(rule, weights_K, pruned(rule, b_KOR @ a_KRI, rng))
            parts[name] = cut(merged_OI, layout.rank)
        else:
            side_by_side = torch.cat([b.double() @ a.double() for b, a in zip(b_KOR, a_KRI, strict=True)], dim=1)
            u, s, vh = torch.linalg.svd(side_by_side, full_matrices=False)
            live = s > 1e-6 * s[0]
            v_KFI = torch.stack(vh[live].float().chunk(len(b_KOR), dim=1))
            merged_FI = elected(rule, weights_K, pruned(rule, v_KFI, rng))
            parts[name] = cut((u[:, live] * s[live]) @ merged_FI.double(), layout.rank)
    return layout.join(parts)


def pruned(rule: Rule, x_K: Tensor, rng: torch.Generator) -> Tensor:
    if rule.prune == "none" or rule.density >= 1:
        return x_K
    return torch.stack([trimmed(rule, x) if rule.prune == "magnitude" else dropped(rule, x, rng) for x in x_K])


def trimmed(rule: Rule, x: Tensor) -> Tensor:
    """Of equal numbers at the border the first stay."""
    size = x.abs().flatten()
    count = min(max(int(rule.density * len(size)), rule.convention == "mergekit"), len(size))
    if count < 1:
        return torch.zeros_like(x)
    border = size.kthvalue(len(size) - count + 1).values
    kept = size > border
    kept[(size == border).nonzero().flatten()[: count - int(kept.sum())]] = True
    return x * kept.view_as(x)


def dropped(rule: Rule, x: Tensor, rng: torch.Generator) -> Tensor:
    kept = x * torch.bernoulli(torch.full_like(x, rule.density), generator=rng)
    if rule.convention == "peft":
        return kept / rule.density if rule.density else kept
    before, after = x.abs().sum(), kept.abs().sum()
    return kept if min(before, after) < 1e-7 else kept * (before / after)


def elected(rule: Rule, weights_K: Tensor, x_K: Tensor) -> Tensor:
    weights = weights_K.view(-1, *[1] * (x_K.dim() - 1))
    if rule.elect == "none":
        return (weights * x_K).sum(dim=0)
    judged_K = x_K if rule.convention == "peft" else weights * x_K
    votes = (judged_K if rule.elect == "total" else judged_K.sign()).sum(dim=0)
    agrees_K = torch.where(votes >= 0, judged_K > 0, judged_K < 0)
    total = (weights * x_K * agrees_K).sum(dim=0)
    if rule.convention == "peft":
        return total / agrees_K.sum(dim=0).clamp_min(1)
    if rule.prune == "random":
        return total
    divisor = (weights * agrees_K).sum(dim=0)
    return torch.where(divisor == 0, total, total / divisor)
