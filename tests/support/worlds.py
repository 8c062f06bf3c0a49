"""A world in which an adapter follows from its sentence, so that what reads the sentence must win.

true adapter of t = start + common + d_t W + a little of its own;  its saved states lie around it.
Shapes: E experts, T tasks, M states of a task, D embedding, P parameters of an adapter.
"""

from __future__ import annotations

import torch

from sglora_cli.lora.prior import Prior, cosines, prior
from sglora_cli.plugin.testing.toys import LAYOUT, ToyPool
from sglora_cli.plugin.values import Material

EXPERTS, TASKS, UNSEEN, STATES, WIDTH = 8, 40, 20, 6, 8


class World:
    """Experts, training tasks and unseen tasks, in this order."""

    moments = None
    layout = LAYOUT

    def __init__(self, own: float = 0.05, within: float = 0.05, seed: int = 0) -> None:
        rng = torch.Generator().manual_seed(seed)
        count = EXPERTS + TASKS + UNSEEN
        sentence_TD = torch.randn(count, WIDTH, generator=rng)
        self.sentence_TD = sentence_TD / sentence_TD.norm(dim=1, keepdim=True)
        common_P, way_DP = torch.randn(LAYOUT.size, generator=rng), torch.randn(WIDTH, LAYOUT.size, generator=rng)
        self.true_TP = LAYOUT.initial(0) + common_P / 2 + self.sentence_TD @ way_DP
        self.true_TP += own * torch.randn(count, LAYOUT.size, generator=rng)
        self.states_TMP = self.true_TP[EXPERTS : EXPERTS + TASKS, None] + within * torch.randn(
            TASKS, STATES, LAYOUT.size, generator=rng
        )
        self.names = [f"world/{e}" for e in range(EXPERTS)]
        self.variance_EP = torch.full((EXPERTS, LAYOUT.size), within**2)

    @property
    def unit_TD(self) -> torch.Tensor:
        return self.sentence_TD

    def best(self, rows) -> torch.Tensor:
        return self.true_TP[list(rows)]

    def means(self, rows=None):
        return self.true_TP[:EXPERTS] if rows is None else self.true_TP[:EXPERTS][list(rows)]

    def variances(self, rows=None):
        return self.variance_EP if rows is None else self.variance_EP[list(rows)]

    def prior(self, t: int) -> Prior:
        similarity_E = cosines(self.sentence_TD[t], self.sentence_TD[:EXPERTS], 4)
        return prior(self.sentence_TD[t], similarity_E, self, k=4, tau=0.05)

    def material(self, **changed) -> Material:
        values = {
            "experts": self,
            "tasks": [f"world/{EXPERTS + t}" for t in range(TASKS)],
            "states": lambda t: self.states_TMP[t],
            "rows": lambda t, rows: self.states_TMP[t, list(rows)],
            "states_of_task": STATES,
            "priors": [self.prior(EXPERTS + t) for t in range(TASKS)],
            "joint_P": self.states_TMP.mean(dim=(0, 1)),
            "pool": ToyPool(self, range(EXPERTS + TASKS)),
            "start_P": None,
            "recall": lambda t, adapters_SP: -(adapters_SP - self.true_TP[EXPERTS + t]).square().sum(dim=1),
            "seed": 0,
            "note": lambda text: None,
        }
        return Material(**{**values, **changed})

    def error(self, made) -> float:
        """Mean squared distance of made(prior) to the true adapters of the unseen tasks."""
        unseen = range(EXPERTS + TASKS, EXPERTS + TASKS + UNSEEN)
        return sum(float((made(self.prior(t)) - self.true_TP[t]).square().sum()) for t in unseen) / UNSEEN
