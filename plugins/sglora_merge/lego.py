"""LoRA-LEGO (Zhao et al. 2024, arXiv 2409.16167): minimal semantic units of all experts, clustered and put together.

A unit is a row a of A with its column b of B. At each site the units [a, b] of all experts are clustered by k-means,
and the k centroids are the units of the merge. Its scale is corrected twice (the paper: dual reweighting). The paper's
formulas were not to be had. Those here are the simplest ones against a norm that decays in means, and a variance that
grows with the number of units:

* parameters: a centroid gets the mean norm of the units in its cluster;
* output: k units in place of r have k/r times the variance, so the update is multiplied by sqrt(r / k).

A pack's experts share their first A, which is most of a unit, so with k = r the clusters are mostly the experts' first
units, their second ones and so on: the merge is then the mean of the factors, with its norm restored. `norm=factors`
restores the norms of a and b apart, as b alone decays where a is shared.

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
"""Of k-means: the best of so many starts, each of at most so many rounds."""


@dataclass(frozen=True)
class Assembled:
    """LoRA-LEGO over one pack's experts."""

    rule: LegoRule
    experts: Experts

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        """(S, P): samples are all alike."""
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
    """The merged units of one site, not yet compressed: B (O, F) and A (F, I) in float64, F at most `clusters`."""
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
    """The cluster of each row, 0 to F - 1, none of them empty; F is less than `clusters` for fewer different rows.

    Lloyd's algorithm from seeds of k-means++ (Arthur and Vassilvitskii 2007), the best of several starts. The random
    numbers are always the same, and the order of the rows does not matter.
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
    """(F, W): different rows, each drawn with the square of its distance to those before."""
    chosen = [int(torch.randint(len(row_NW), (), generator=rng))]
    square_N = (row_NW - row_NW[chosen[0]]).square().sum(dim=1)
    while len(chosen) < clusters and bool((square_N > 0).any()):
        chosen.append(int(torch.multinomial(square_N / square_N.max(), 1, generator=rng)))
        square_N = torch.minimum(square_N, (row_NW - row_NW[chosen[-1]]).square().sum(dim=1))
    return row_NW[chosen]


def _lloyd(row_NW: Tensor, centre_FW: Tensor) -> tuple[Tensor, float]:
    """The cluster of each row and the sum of squared distances to its centre, once no row changes its cluster."""
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
