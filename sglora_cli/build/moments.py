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
    length = Length(model.projection_weight()) if isinstance(model, HasProjection) else None
    for t in progress(seen, "moments of tasks"):
        stored = t.train.stored(model)
        if length and isinstance(model, HasProjection):
            p_NI = unprojected(model, stored.stem_N)
            length.add(p_NI)
            image_ND = length.images(p_NI)
        else:
            image_ND = image_embeddings(model, stored.stem_N)
        images.append(image_ND.double().mean(dim=0))
        text_CD = stored.text_CD[list(range(len(stored.text_CD)))].double()
        captions.append((text_CD[list(stored.label_of)] if stored.label_of else text_CD).mean(dim=0))
    sentences_TD = model.encode_text([t.task.description for t in seen]).float()
    of_tasks = sentences_TD, torch.stack(images).float(), torch.stack(captions).float()
    keys = tuple(t.task.key for t in seen)
    if length is None or not isinstance(model, HasProjection):
        return Moments(keys, *of_tasks)
    return Moments(keys, *of_tasks, model.projection, length.weight_DI, length.fitted().float())


@torch.no_grad()
def unprojected(model: HasProjection, stem_N: TensorRows) -> Tensor:
    """What the last map is applied to, of photos on disk: (N, I) float32 on the CPU."""
    parts = torch.arange(len(stem_N)).split(IMAGES_AT_ONCE)
    return torch.cat([model.unprojected(stem_N[part.tolist()]).float().cpu() for part in parts])


class Length:
    """Least squares of ||W p|| on p over photos: sums of p p^T (I, I) and of p ||W p|| (I,)."""

    def __init__(self, weight_DI: Tensor) -> None:
        self.weight_DI = weight_DI
        width = weight_DI.shape[1]
        self._square_II = torch.zeros(width, width, dtype=torch.float64)
        self._cross_I, self._count = torch.zeros(width, dtype=torch.float64), 0

    def images(self, p_NI: Tensor) -> Tensor:
        """Unit embeddings (N, D) of photos, double: W p normalised."""
        return F.normalize(p_NI.double() @ self.weight_DI.double().T, dim=1)

    def add(self, p_NI: Tensor) -> None:
        """Add photos."""
        p_NI = p_NI.double()
        self._square_II += p_NI.T @ p_NI
        self._cross_I += p_NI.T @ (p_NI @ self.weight_DI.double().T).norm(dim=1)
        self._count += len(p_NI)

    def fitted(self) -> Tensor:
        """r (I,)."""
        square_II = self._square_II / self._count
        return torch.linalg.solve(
            square_II + _RIDGE * square_II.diagonal().mean() * torch.eye(len(square_II), dtype=torch.float64),
            self._cross_I / self._count,
        )
