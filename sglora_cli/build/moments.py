"""What the moments of a pack's seen tasks are computed from: their training photos and captions, without an adapter.

Shapes: N photos, D embedding, I what the last map is applied to, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.build.tasks import BuildTask
from sglora_cli.data.encode import IMAGES_AT_ONCE, image_embeddings
from sglora_cli.files.tensor_rows import TensorRows
from sglora_cli.plugin.contracts import HasProjection, Model
from sglora_cli.plugin.values import Moments
from sglora_cli.system.progress import progress

_RIDGE = 1e-3
"""Of the mean square of what W is applied to: the fit of the length hardly depends on it."""


def moments(model: Model, seen: Sequence[BuildTask]) -> Moments:
    """Of the tasks that a pack learns from. Reads their features; every photo goes through the encoder once."""
    images, captions = [], []
    length = _Length(model) if isinstance(model, HasProjection) else None
    for t in progress(seen, "moments of tasks"):
        stored = t.train.stored(model)
        image_ND = length.see(stored.stem_N) if length else image_embeddings(model, stored.stem_N)
        images.append(image_ND.double().mean(dim=0))
        text_CD = stored.text_CD[list(range(len(stored.text_CD)))].double()
        captions.append((text_CD[list(stored.label_of)] if stored.label_of else text_CD).mean(dim=0))
    sentences_TD = model.encode_text([t.task.description for t in seen]).float()
    of_tasks = sentences_TD, torch.stack(images).float(), torch.stack(captions).float()
    keys = tuple(t.task.key for t in seen)
    if length is None:
        return Moments(keys, *of_tasks)
    return Moments(keys, *of_tasks, length.model.projection, length.weight_DI, length.fitted().float())


class _Length:
    """Least squares of ||W p|| on p over all photos that were seen: sums of p p^T (I, I) and of p ||W p|| (I,)."""

    def __init__(self, model: HasProjection) -> None:
        self.model, self.weight_DI = model, model.projection_weight()
        width = self.weight_DI.shape[1]
        self._square_II = torch.zeros(width, width, dtype=torch.float64)
        self._cross_I, self._count = torch.zeros(width, dtype=torch.float64), 0

    @torch.no_grad()
    def see(self, stem_N: TensorRows) -> Tensor:
        """Add photos. Returns their unit embeddings (N, D), W p normalised."""
        rows, parts = range(len(stem_N)), []
        for first in range(0, len(rows), IMAGES_AT_ONCE):
            p_NI = self.model.unprojected(stem_N[list(rows[first : first + IMAGES_AT_ONCE])]).double().cpu()
            image_ND = p_NI @ self.weight_DI.double().T
            parts.append(F.normalize(image_ND, dim=1))
            self._square_II += p_NI.T @ p_NI
            self._cross_I += p_NI.T @ image_ND.norm(dim=1)
            self._count += len(p_NI)
        return torch.cat(parts)

    def fitted(self) -> Tensor:
        """r (I,)."""
        square_II = self._square_II / self._count
        return torch.linalg.solve(
            square_II + _RIDGE * square_II.diagonal().mean() * torch.eye(len(square_II), dtype=torch.float64),
            self._cross_I / self._count,
        )
