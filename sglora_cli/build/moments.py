"""Mean embeddings of the photos and captions of the seen tasks, without an adapter.

Shapes: N photos, D embedding, I input of the last projection, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sglora_cli.build.bank import Bank
from sglora_cli.build.pool_tasks import Place, PoolTask
from sglora_cli.plugin.contracts import HasProjection
from sglora_cli.plugin.values import Moments
from sglora_cli.system.progress import progress

_RIDGE = 1e-3
"""Ridge penalty, relative to the mean square of the projection's input. The fitted length hardly depends on it."""


def moments(bank: Bank, tasks: Sequence[PoolTask]) -> Moments:
    """Compute the moments of these tasks.

    Every photo is encoded once, and counts once for the length.
    """
    model, known = bank.model, set[Place]()
    images, captions = [], []
    length = Length(model.projection_weight()) if isinstance(model, HasProjection) else None
    for t in progress(tasks, "moments of tasks"):
        images.append(bank.embeddings(t.photos).mean(dim=0))
        captions.append(bank.mean_caption(t.photos))
        if length and (new := [place for place in t.photos if place not in known]):
            length.add(bank.before_projection(new))
            known.update(new)
    sentences_TD = model.encode_text([t.description for t in tasks]).float()
    of_tasks = sentences_TD, torch.stack(images).float(), torch.stack(captions).float()
    keys = tuple(t.name for t in tasks)
    if length is None or not isinstance(model, HasProjection):
        return Moments(keys, *of_tasks)
    return Moments(keys, *of_tasks, model.projection, length.weight_DI, length.fitted().float())


class Length:
    """Least-squares fit of ||W p|| on p over photos, from the sums of p p^T (I, I) and of p ||W p|| (I,)."""

    def __init__(self, weight_DI: Tensor) -> None:
        self.weight_DI = weight_DI
        width = weight_DI.shape[1]
        self._square_II = torch.zeros(width, width, dtype=torch.float64)
        self._cross_I, self._count = torch.zeros(width, dtype=torch.float64), 0

    def add(self, p_NI: Tensor) -> None:
        """Add photos."""
        p_NI = p_NI.double()
        self._square_II += p_NI.T @ p_NI
        self._cross_I += p_NI.T @ (p_NI @ self.weight_DI.double().T).norm(dim=1)
        self._count += len(p_NI)

    def fitted(self) -> Tensor:
        """Return the coefficients r (I,)."""
        square_II = self._square_II / self._count
        return torch.linalg.solve(
            square_II + _RIDGE * square_II.diagonal().mean() * torch.eye(len(square_II), dtype=torch.float64),
            self._cross_I / self._count,
        )
