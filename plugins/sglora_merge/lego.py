"""LoRA-LEGO (Zhao et al. 2024, arXiv 2409.16167): cluster the minimal semantic units of all experts.

A unit is a row a of A with its column b of B. At each site, k-means clusters the units [a, b] of all experts, and the
k centroids are the units of the merge. Its scale is corrected twice (the paper's dual reweighting). The paper's
formulas were not available. The formulas here are the simplest that counter the smaller norm of means, and a variance
that grows with the number of units:

* parameters: a centroid gets the mean norm of the units in its cluster;
* output: k units instead of r have k/r times the variance, so the update is multiplied by sqrt(r / k).

A pack's experts share their initial A, which is most of a unit. With k = r, the clusters are therefore mostly the
experts' first units, their second units and so on, and the merge is the mean of the factors with its norm restored.
`norm=factors` restores the norms of a and b separately, because only b becomes shorter where a is shared.

Shapes: K adapters, O out_features, I in_features, R rank, N units, F clusters, W = I + O numbers of a unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sglora_cli.api import Experts, Prior, compress

from .dense import Factors
from .rule import LegoRule

STARTS, ROUNDS = 30, 300
"""k-means takes the best of this many starts, each with at most this many rounds."""


@dataclass(frozen=True)
class Assembled:
    """LoRA-LEGO over the experts of one pack."""

    rule: LegoRule
    experts: Experts

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, P). All samples are equal."""
        one_P = self._of_all if self.rule.experts == "all" else self._merged(self.experts.means(prior.rows))
        return one_P.expand(samples, -1).clone()

    def tensors(self) -> dict[str, Tensor]:
        return {}

    @cached_property
    def _of_all(self) -> Tensor:
        return self._merged(self.experts.means())

    def _merged(self, adapters_KP: Tensor) -> Tensor:
        layout = self.experts.layout
        parts = {
            name: compress(*assembled(b_KOR, a_KRI, self.rule.clusters or layout.rank, self.rule.norm), layout.rank)[:2]
            for name, (b_KOR, a_KRI) in layout.split(adapters_KP).items()
        }
        return layout.join(parts)


def assembled(b_KOR: Tensor, a_KRI: Tensor, clusters: int, norm: str = "unit") -> Factors:
    """Return the merged units of one site before compression: B (O, F), A (F, I), float64, F at most `clusters`."""
    rank, width = a_KRI.shape[1:]
    unit_NW = torch.cat([a_KRI.double(), b_KOR.double().mT], dim=-1).flatten(0, 1)
    cluster_N = kmeans(unit_NW, clusters)
    member_FN = torch.nn.functional.one_hot(cluster_N).T.double()
    member_FN = member_FN / member_FN.sum(dim=1, keepdim=True)
    centre_FW = member_FN @ unit_NW
    parts = {"none": [], "unit": [slice(None)], "factors": [slice(width), slice(width, None)]}[norm]
    for part in parts:
        wanted_F = member_FN @ unit_NW[:, part].norm(dim=1)
        got_F = centre_FW[:, part].norm(dim=1)
        centre_FW[:, part] *= torch.where(got_F > 0, wanted_F / got_F, 1.0)[:, None]
    scale = (rank / len(centre_FW)) ** 0.5
    return scale * centre_FW[:, width:].T, centre_FW[:, :width]


def kmeans(row_NW: Tensor, clusters: int) -> Tensor:
    """Return the cluster of each row, 0 to F - 1, none empty. With few different rows, F is less than `clusters`.

    Lloyd's algorithm with k-means++ seeding (Arthur and Vassilvitskii 2007), the best of several starts. The random
    seed is fixed, and the order of the rows does not matter.
    """
    rng = torch.Generator().manual_seed(0)
    order_N = (row_NW @ torch.randn(row_NW.shape[1], generator=rng, dtype=row_NW.dtype)).argsort()
    row_NW = row_NW[order_N]
    best_N, least = torch.zeros(len(row_NW), dtype=torch.long), float("inf")
    for _ in range(STARTS):
        cluster_N, error = _lloyd(row_NW, _seeds(row_NW, clusters, rng))
        if error < least * (1 - 1e-9):
            best_N, least = cluster_N, error
    found_N = torch.empty_like(best_N)
    found_N[order_N] = best_N.unique(return_inverse=True)[1]
    return found_N


def _seeds(row_NW: Tensor, clusters: int, rng: torch.Generator) -> Tensor:
    """Return different rows (F, W), each sampled with the squared distance to the previous ones as its weight."""
    chosen = [int(torch.randint(len(row_NW), (), generator=rng))]
    square_N = (row_NW - row_NW[chosen[0]]).square().sum(dim=1)
    while len(chosen) < clusters and bool((square_N > 0).any()):
        chosen.append(int(torch.multinomial(square_N / square_N.max(), 1, generator=rng)))
        square_N = torch.minimum(square_N, (row_NW - row_NW[chosen[-1]]).square().sum(dim=1))
    return row_NW[chosen]


def _lloyd(row_NW: Tensor, centre_FW: Tensor) -> tuple[Tensor, float]:
    """Iterate until no row changes its cluster. Returns each row's cluster and the sum of squared distances."""
    last_N = torch.full((len(row_NW),), -1)
    for _ in range(ROUNDS):
        distance_NF = torch.cdist(row_NW, centre_FW, compute_mode="donot_use_mm_for_euclid_dist")
        cluster_N = distance_NF.argmin(dim=1)
        if torch.equal(cluster_N, last_N):
            break
        last_N = cluster_N
        count_F = torch.bincount(cluster_N, minlength=len(centre_FW))
        sum_FW = torch.zeros_like(centre_FW).index_add_(0, cluster_N, row_NW)
        # A cluster that lost all its rows keeps its centre.
        centre_FW = torch.where(count_F[:, None] > 0, sum_FW / count_F[:, None].clamp_min(1), centre_FW)
    return last_N, float((row_NW - centre_FW[last_N]).square().sum())
