"""The photos of a build's seen tasks, with the outputs of the frozen encoders for them and their captions.

Shapes: N photos, C captions, D embedding, I input of the projection, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.build.pool_tasks import Place
from sglora_cli.build.tasks import BuildTask
from sglora_cli.data.encode import IMAGES_AT_ONCE, image_embeddings
from sglora_cli.data.features import StoredTask
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.contracts import HasProjection, Model


class Bank:
    """Reads features on demand. Small values are computed once and cached."""

    def __init__(self, model: Model, seen: Sequence[BuildTask]) -> None:
        self.model, self.seen = model, seen
        self._files: dict[int, StoredTask] = {}
        self._texts: dict[tuple[int, bool], Tensor] = {}
        self._last: dict[tuple[int, bool], Tensor] = {}
        self._embedded: dict[int, Tensor] = {}

    def hash_of(self, place: Place) -> str:
        return self.seen[place[0]].train.hashes[place[1]]

    def _file(self, task: int) -> StoredTask:
        if task not in self._files:
            self._files[task] = self.seen[task].stored(self.model)
        return self._files[task]

    def _text(self, task: int, mirrored: bool = False) -> Tensor:
        """(C, D)."""
        if (key := (task, mirrored)) not in self._texts:
            file = self._file(task)
            rows = (file.mirror or file if mirrored else file).text_CD
            self._texts[key] = rows[list(range(len(rows)))]
        return self._texts[key]

    def _unprojected(self, task: int, mirrored: bool = False) -> Tensor:
        """Return the inputs of the last projection for all photos of a task: (N, I) float32 on the CPU."""
        if (key := (task, mirrored)) not in self._last:
            file = self._file(task)
            stem_N = (file.mirror or file if mirrored else file).stem_N
            assert isinstance(self.model, HasProjection)
            with torch.no_grad():
                parts = torch.arange(len(stem_N)).split(IMAGES_AT_ONCE)
                read = [self.model.unprojected(stem_N[part.tolist()]).float().cpu() for part in parts]
            self._last[key] = torch.cat(read)
        return self._last[key]

    def before_projection(self, places: Iterable[Place]) -> Tensor:
        """(N, I)."""
        return torch.stack([self._unprojected(n)[row] for n, row in places])

    def embeddings(self, places: Sequence[Place]) -> Tensor:
        """Return unit embeddings (N, D) without an adapter, float64."""
        for n in {n for n, _ in places} - set(self._embedded):
            if isinstance(self.model, HasProjection):
                image_ND = self._unprojected(n).double() @ self.model.projection_weight().double().T
                self._embedded[n] = F.normalize(image_ND, dim=1)
            else:
                self._embedded[n] = image_embeddings(self.model, self._file(n).stem_N).double()
        return torch.stack([self._embedded[n][row] for n, row in places])

    def adapted(self, task: int, layout: Layout, flat_P: Tensor) -> Tensor:
        """Return unit embeddings (N, D) of a task's photos with an adapter, on the CPU."""
        return image_embeddings(self.model, self._file(task).stem_N, layout, flat_P)

    def mean_caption(self, places: Sequence[Place]) -> Tensor:
        """Return the mean embedding (D,) of the photos' captions, float64.

        Each caption counts equally. In classification tasks, each photo counts with the head of its class.
        """
        captions = [self._text(n)[self._captions_of(n, row)] for n, row in places]
        return torch.cat(captions).double().mean(dim=0)

    def _captions_of(self, task: int, row: int) -> list[int]:
        """Return the rows of `text_CD` for a photo: its captions, or its class."""
        file = self._file(task)
        if file.label_of:
            return [file.label_of[row]]
        return self._owned[task][row]

    @cached_property
    def _owned(self) -> list[list[list[int]]]:
        """The captions of each photo, by task and photo."""
        owned = []
        for n, t in enumerate(self.seen):
            own: list[list[int]] = [[] for _ in t.photos]
            for caption, photo in enumerate(self._file(n).image_of):
                own[photo].append(caption)
            owned.append(own)
        return owned

    def pairs(
        self, places: Sequence[Place], mirrored: Sequence[bool], which: Sequence[float], last: bool
    ) -> tuple[Tensor, Tensor, list[int], Tensor | None]:
        """Return photos and one caption of each, with label rows and class heads.

        The photos are stems (N, ...), or inputs of the projection if `last` is true. The captions are (N, D), chosen by
        a number in [0, 1) per photo. The class heads are None unless the task is a classification task.
        """
        stems, texts, labels = [], [], []
        for (n, row), turned, chance in zip(places, mirrored, which, strict=True):
            file = self._file(n)
            one = file.mirror if turned and file.mirror else file
            stems.append(self._unprojected(n, one is not file)[row] if last else one.stem_N[row])
            own = self._captions_of(n, row)
            labels.append(own[int(chance * len(own))])
            texts.append(self._text(n, one is not file)[labels[-1]])
        heads_CD = self._text(places[0][0]) if self._file(places[0][0]).label_of else None
        return torch.stack(stems), torch.stack(texts), labels, heads_CD
