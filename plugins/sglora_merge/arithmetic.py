"""TIES and DARE on stacks of tensors, with the conventions of PEFT and mergekit.

The conventions differ:

| | PEFT | mergekit |
|---|---|---|
| trimmed to | int(density n) numbers | the same, but at least one |
| after dropping | divided by the density | rescaled to the previous L1 norm |
| signs are elected by | the unweighted tensors | the weighted tensors |
| divided by | the number of agreeing tensors | their weight for TIES, nothing for DARE-TIES |

In both, a sum of zero counts as positive. With weights of 1, TIES is the same in both.
TIES: Yadav et al. 2023. DARE: Yu et al. 2024.

Masks are float32 with values 0 and 1, because torch multiplies by booleans several times more slowly.
Shapes: K adapters, S sites, T tensors, N numbers, M numbers of a sample, ... the shape of a tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from .rule import Rule

NOTHING = 1e-7
"""mergekit's threshold. A tensor with a smaller L1 norm is not rescaled."""
_BLOCK = {"cpu": 1 << 18, "cuda": 1 << 25}
"""Numbers per step, by device type. On a CPU they fit into its cache."""
_MANY = 4096
"""From this many numbers on, a sample speeds up the search for their border."""


def combined(rule: Rule, weights_K: Tensor, stacks: Sequence[Tensor], rng: torch.Generator) -> list[Tensor]:
    """Combine the tensors of K adapters at each site: float32 (K, S, ...) -> (S, ...), for every stack.

    The stacks are contiguous and are overwritten. Computes on their device, with additional memory for the results and
    some blocks. Random drops are drawn on the CPU with `rng`, in the order of sites, then stacks, then adapters. A
    seed therefore drops the same numbers on every device and with any batch size.
    """
    if rule.density < 1 and rule.prune == "magnitude":
        for x_KS in stacks:
            _trim(rule, x_KS.view(x_KS.shape[0] * x_KS.shape[1], *x_KS.shape[2:]))
    if rule.density < 1 and rule.prune == "random":
        _drop(rule, stacks, rng)
    return [_elected(rule, weights_K, x_KS.flatten(1)).view(x_KS.shape[1:]) for x_KS in stacks]


def _trim(rule: Rule, x_T: Tensor) -> None:
    """Keep the largest magnitudes of each tensor (T, ...). Of equal numbers at the border, the first ones stay."""
    total = x_T[0].numel()
    count = min(max(int(rule.density * total), int(rule.convention == "mergekit")), total)
    if count < 1:
        x_T.zero_()
        return
    for x in x_T.split(max(1, _BLOCK[x_T.device.type] // total)):
        size = x.abs()
        border_T = _borders(size.flatten(1), count)
        kept = size.ge_(border_T.view(-1, *[1] * (x.dim() - 1)))
        # Sum by rows first, because float32 counts exactly only up to 2^24.
        surplus_T = kept.sum(dim=-1).view(len(kept), -1).sum(dim=1, dtype=torch.float64) - count
        for t in (surplus_T > 0).nonzero().flatten().tolist():
            equal = (x[t].abs().flatten() == border_T[t]).nonzero().flatten()
            kept[t].view(-1)[equal[-int(surplus_T[t]) :]] = 0
        x.mul_(kept)


def _borders(size_TN: Tensor, count: int) -> Tensor:
    """Return the `count`-th largest number of each row: (T,)."""
    place = size_TN.shape[1] - count
    if size_TN.device.type != "cpu":
        return size_TN.kthvalue(place + 1, dim=1).values
    rows = size_TN.numpy()
    if rows.shape[1] < _MANY:
        return torch.from_numpy(numpy.partition(rows, place, axis=1)[:, place])
    return torch.from_numpy(numpy.array([_border(size_N, count) for size_N in rows]))


def _border(size_N: NDArray[numpy.float32], count: int) -> numpy.float32:
    """Return the same as `partition`, two to four times as fast. A sample narrows the search to an interval."""
    total = len(size_N)
    sample_M = numpy.sort(size_N[:: int(total**0.5 / 8) | 1])  # an even step would sample few columns of a matrix
    below = len(sample_M) * (1 - count / total)
    spread = 3 * (below * count / total) ** 0.5 + 1  # three standard deviations
    low, high = sample_M[max(int(below - spread), 0)], sample_M[min(int(below + spread), len(sample_M) - 1)]
    between_N = size_N.take(((size_N >= low) & (size_N <= high)).nonzero()[0])
    wanted = count - int(numpy.count_nonzero(size_N > high))
    if not 1 <= wanted <= len(between_N):  # the sample was not representative
        between_N, wanted = size_N, count
    border: numpy.float32 = numpy.partition(between_N, len(between_N) - wanted)[len(between_N) - wanted]
    return border


def _drop(rule: Rule, stacks: Sequence[Tensor], rng: torch.Generator) -> None:
    for s in range(stacks[0].shape[1]):
        for x_KS in stacks:
            for x in x_KS[:, s]:
                before = x.abs().sum() if rule.convention == "mergekit" else None
                # The same random numbers as torch.bernoulli, in a quarter of the time.
                x.mul_(torch.rand(x.shape, generator=rng).lt_(rule.density).to(x.device))
                if before is not None:
                    after = x.abs().sum()
                    x.mul_(torch.where(torch.minimum(before, after) < NOTHING, 1.0, before / after))
    if rule.convention == "peft" and rule.density:
        for x_KS in stacks:
            x_KS.div_(rule.density)


def _elected(rule: Rule, weights_K: Tensor, x_KN: Tensor) -> Tensor:
    """Return the weighted sum or mean of the numbers that agree with the majority sign: (N,)."""
    # Multiples of 1024, because torch adds the K in another order for the last few numbers of a block.
    block = 1024 * max(1, _BLOCK[x_KN.device.type] // (1024 * max(1, len(x_KN))))
    return torch.cat([_block_elected(rule, weights_K[:, None], part_KN) for part_KN in x_KN.split(block, dim=1)])


def _block_elected(rule: Rule, weights_K1: Tensor, x_KN: Tensor) -> Tensor:
    weighted_KN = x_KN if bool((weights_K1 == 1).all()) else weights_K1 * x_KN
    if rule.elect == "none":
        return weighted_KN.sum(dim=0)
    judged_KN = x_KN if rule.convention == "peft" else weighted_KN
    votes_N = (judged_KN if rule.elect == "total" else judged_KN.sign()).sum(dim=0)
    side_N = votes_N.ge_(0).mul_(2).sub_(1)  # 1 or -1
    agrees_KN = (judged_KN * side_N).sign_().clamp_min_(0)
    total_N = (weighted_KN * agrees_KN).sum(dim=0)
    if rule.convention == "peft":
        return total_N / agrees_KN.sum(dim=0).clamp_min_(1)
    if rule.prune == "random":
        return total_N
    divisor_N = (weights_K1 * agrees_KN).sum(dim=0)
    return total_N / torch.where(divisor_N == 0, 1.0, divisor_N)
