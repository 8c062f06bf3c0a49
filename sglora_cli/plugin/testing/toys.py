"""Shared parts of the conformance checks: assertions, and data small enough to learn from in a second.

Shapes: E experts, T training tasks, M states of a task, D embedding, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sglora_cli.errors import PluginError
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.lora.prior import Prior, cosines, prior
from sglora_cli.plugin.values import EXPERT, TRAINING, Material, Moments

if TYPE_CHECKING:
    from PIL.Image import Image


ConformanceCheck = Callable[..., None]
"""Raises PluginError if a plugin's value fails the check. Its docstring states the requirement."""
LAYOUT = Layout((Site("layers.0.q", 5, 7), Site("layers.0.k", 3, 7), Site("layers.0.v", 7, 4)), 2, 4.0)
"""The layout of the toy experts, with sites of odd and different sizes."""
EXPERTS, TASKS, STATES, WIDTH = 4, 6, 5, 8
PROJECTION = Site("head", WIDTH, 6)
"""The projection at the end of the toy backbone."""


def ask(good: bool, message: str, hint: str = "") -> None:
    """Raise PluginError with the message unless `good`."""
    if not good:
        raise PluginError(message, hint)


def run_check(check: ConformanceCheck, *subject: Any) -> str:
    """Return a description of the fault, or "" if the check passes. Any exception of a plugin counts as a fault."""
    try:
        check(*subject)
    except PluginError as error:
        return error.message
    except Exception as error:  # plugin code may raise anything
        return f"{type(error).__name__}: {error}"
    return ""


def run_all(checks: Sequence[ConformanceCheck], *subject: Any) -> None:
    """Raise PluginError listing all faults."""
    wrong = {check.__name__: message for check in checks if (message := run_check(check, *subject))}
    ask(not wrong, "; ".join(f"{name}: {message}" for name, message in wrong.items()))


def images(count: int = 3) -> list[Image]:
    """Return noise images in several sizes, the same in every call."""
    from PIL import Image

    rng = torch.Generator().manual_seed(0)
    sizes = ((320, 240), (200, 300), (256, 256))
    return [
        Image.frombytes("RGB", (w, h), bytes(torch.randint(256, (w * h * 3,), generator=rng).tolist()))
        for w, h in (sizes[i % 3] for i in range(count))
    ]


class ToyExperts:
    """Experts in memory whose adapters are a function of their embeddings."""

    moments: Moments | None = None

    def __init__(self) -> None:
        self.names: Sequence[str] = [f"toys/{n}" for n in range(EXPERTS)]
        self.layout = LAYOUT
        self.unit_TD = _unit(EXPERTS + TASKS)
        rng = torch.Generator().manual_seed(1)
        self.way_DP = torch.randn(WIDTH, LAYOUT.size, generator=rng) / 3
        self.mean_EP = LAYOUT.initial(0) + self.unit_TD[:EXPERTS] @ self.way_DP
        self.variance_EP = torch.full_like(self.mean_EP, 1e-4)

    def best(self, rows: Sequence[int]) -> Tensor:
        """Return (T, P), the best adapter for each of these tasks."""
        return LAYOUT.initial(0) + self.unit_TD[list(rows)] @ self.way_DP

    def means(self, rows: Sequence[int] | None = None) -> Tensor:
        return self.mean_EP if rows is None else self.mean_EP[list(rows)]

    def variances(self, rows: Sequence[int] | None = None) -> Tensor:
        return self.variance_EP if rows is None else self.variance_EP[list(rows)]

    def prior(self, row: int) -> Prior:
        return prior(self.unit_TD[row], cosines(self.unit_TD[row], self.unit_TD[:EXPERTS], 2), self, k=2, tau=0.05)


class ToyPool:
    """A pool of toy tasks. Its loss is the squared distance to the best update of a task.

    The best update of the projection is also a function of the sentence.
    """

    sites = LAYOUT.sites

    def __init__(self, experts: ToyExperts, rows: Sequence[int] = range(EXPERTS + TASKS)) -> None:
        self.experts, self.rows = experts, list(rows)
        self.names = [f"toys/{row}" for row in self.rows]
        self.roles = [EXPERT if row < EXPERTS else TRAINING for row in self.rows]
        self.sentences_TD = experts.unit_TD[self.rows]
        rng = torch.Generator().manual_seed(4)
        self._projection_DI = torch.randn(PROJECTION.out_features, PROJECTION.in_features, generator=rng)

    @property
    def moments(self) -> Moments:
        length_I = torch.full((PROJECTION.in_features,), 0.1)
        d_TD = self.sentences_TD
        return Moments(self.names, d_TD, 0.5 * d_TD, 0.8 * d_TD, PROJECTION, self._projection_DI, length_I)

    def mean_images(self, layout: Layout, flat_P: Tensor) -> Tensor:
        return self.moments.images_TD + 0.1 * layout.update_norm(flat_P[None])  # the adapter shifts all photos equally

    def prior(self, task: int) -> Prior:
        return self.experts.prior(self.rows[task])

    def without(self, names: Collection[str]) -> ToyPool:
        left = [row for row, name in zip(self.rows, self.names, strict=True) if name not in names]
        return type(self)(self.experts, left)

    def losses(
        self, layout: Layout, adapters_TP: Tensor, tasks: Sequence[int], photos: int, rng: torch.Generator
    ) -> Tensor:
        torch.rand(photos, generator=rng)  # use the generator as if drawing photos
        d_TD = self.sentences_TD[list(tasks)]
        best = LAYOUT.split(self.experts.best([self.rows[task] for task in tasks]))
        loss_T = torch.zeros(len(tasks))
        for name, (b_TOR, a_TRI) in layout.split(adapters_TP).items():
            if name == PROJECTION.name:
                target_TOI = -d_TD[:, :, None] * (d_TD @ self._projection_DI)[:, None]
            else:
                target_TOI = best[name][0] @ best[name][1] * LAYOUT.scaling
            loss_T = loss_T + (b_TOR @ a_TRI * layout.scaling - target_TOI).square().sum(dim=(1, 2))
        return loss_T


def material(experts: ToyExperts) -> Material:
    """Return training tasks whose adapters depend on their sentences as the experts' do, with added noise."""
    rng = torch.Generator().manual_seed(2)
    mean_TP = LAYOUT.initial(0) + experts.unit_TD[EXPERTS:] @ experts.way_DP
    states_TMP = mean_TP[:, None] + 0.01 * torch.randn(TASKS, STATES, LAYOUT.size, generator=rng)
    return Material(
        experts=experts,
        tasks=tuple(f"toys/{EXPERTS + t}" for t in range(TASKS)),
        states=lambda t: states_TMP[t],
        rows=lambda t, rows: states_TMP[t, list(rows)],
        states_of_task=STATES,
        priors=[experts.prior(EXPERTS + t) for t in range(TASKS)],
        joint_P=mean_TP.mean(dim=0),
        pool=ToyPool(experts),
        start_P=LAYOUT.initial(0),
        recall=lambda t, adapters_SP: 100 / (1 + (adapters_SP - mean_TP[t]).square().sum(dim=1)),
        seed=0,
        note=lambda text: None,
    )


def _unit(count: int) -> Tensor:
    vectors_TD = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(3))
    return vectors_TD / vectors_TD.norm(dim=1, keepdim=True)
