"""Train a mixing network by retrieval, with the mixture of each seen task's sentence.

See the package's docstring for shape letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sglora_cli.api import Layout, Material, check_pool, learn_by_retrieval

from . import MixtureConfig
from .mixture import Asked, FittedMixture, Mixer, exact, exact_layout, fold, folded_layout

_FOLDED = 32
"""Number of seen tasks used to measure the compression error."""


def fit(name: str, material: Material, config: MixtureConfig, network: Mixer) -> tuple[FittedMixture, dict[str, Any]]:
    """Train an initialised network. Also returns measurements for the manifest.

    The expert tasks are excluded, because on its own training photos an expert looks better than it is.
    """
    material = replace(material, pool=material.pool.without(material.experts.names))
    layout, pool, device = material.experts.layout, material.pool, torch.device(material.device)
    check_pool(pool, name)
    asked = Asked.of(pool.prior(t) for t in range(len(pool.names))).to(device)
    means_EP = material.experts.means().to(device)
    network.to(device)

    def adapters(tasks: Sequence[int], step: int = 0) -> tuple[Layout, Tensor]:
        rows_Tn, coefficient_TSn = network(asked.only(tasks))
        return exact_layout(layout, rows_Tn.shape[1]), exact(layout, means_EP, rows_Tn, coefficient_TSn)

    facts = learn_by_retrieval(
        material, network, config, adapters, name, lambda tasks: network.penalty(asked.only(tasks))
    )
    network.cpu().requires_grad_(False).eval()
    some = range(0, len(pool.names), -(-len(pool.names) // _FOLDED))
    asked, means_EP = asked.to(torch.device("cpu")), means_EP.cpu()
    made = [adapters([t]) for t in some]
    count = made[0][0].rank // layout.rank
    folded = folded_layout(layout, count, config.rank)
    dropped = sum(fold(exactly, flat_1Q, folded)[1] for exactly, flat_1Q in made) / len(made)
    facts |= {"experts_mixed": count, "rank": folded.rank, "dropped": dropped}
    return FittedMixture(material.experts, network, folded), facts
