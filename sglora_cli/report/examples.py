"""Effects of a generated adapter on a caption's five best photos: the largest rise and fall in each data set.

Shapes: N images, C captions, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.bench.retrieval import DIRECTIONS, ranks_of
from sglora_cli.data.encode import encode_images
from sglora_cli.data.features import task_tensors
from sglora_cli.pack.recipe_parser import parse
from sglora_cli.plugin.values import UNSEEN, Photo, Task
from sglora_cli.report.figures import ReportData
from sglora_cli.system.progress import progress

TOP = 5


@dataclass(frozen=True)
class RetrievalExample:
    """One caption, and the photos of its task that match it best without and with the adapter."""

    dataset: str
    task: str
    caption: str
    right: Path
    """The photo that the caption describes."""
    before: Sequence[Path]
    after: Sequence[Path]
    rank_before: int
    rank_after: int

    @property
    def change(self) -> float:
        """The change of 1 / rank, which emphasises the top ranks."""
        return 1 / self.rank_after - 1 / self.rank_before


def retrieval_examples(data: ReportData, photos: Path) -> list[RetrievalExample]:
    """Return for each data set the caption with the largest rise and the one with the largest fall, if they exist.

    All captions of the measured unseen tasks are compared, text to image, with one draw of the method.
    Raises Unavailable, UnknownName or BadFile if the photos are missing.
    """
    best: dict[str, list[RetrievalExample]] = {}
    for task in progress(_tasks(data, photos), "photos"):
        examples = list(_of_task(data, task))
        best.setdefault(task.dataset, []).extend(_extremes(examples))
    result = []
    for several in best.values():
        rise, fall = _extremes(several)
        result += [rise] if rise.change > 0 else []
        result += [fall] if fall.change < 0 else []
    return result


def _extremes(examples: Sequence[RetrievalExample]) -> tuple[RetrievalExample, RetrievalExample]:
    """Return the examples with the largest and the smallest change. The first of equals is used."""
    return max(examples, key=lambda e: e.change), min(examples, key=lambda e: e.change)


def _tasks(data: ReportData, photos: Path) -> list[Task]:
    """Return the unseen tasks that were measured as retrieval, with their photos."""
    wanted = {(row.dataset, row.task) for row in data.report.rows if row.direction in DIRECTIONS}
    datasets = {dataset for dataset, _ in wanted}
    with_photos: dict[tuple[str, str], Task] = {}
    for recipe in (parse(pack.name, pack.manifest["recipe"]) for pack in data.sources):
        for source in recipe.sources:
            if source.name in datasets:
                tasks = source.tasks(data.loaded.host, photos, recipe.template)[UNSEEN]
                with_photos |= {(task.dataset, task.name): task for task in tasks}
    return [task for name, task in with_photos.items() if name in wanted and name in data.priors]


def _of_task(data: ReportData, task: Task) -> Iterator[RetrievalExample]:
    photos: Sequence[Photo] = task.photos["test"]
    model, pack = data.loaded.model, data.loaded.pack
    tensors = task_tensors(model, task.key, photos)
    prior = data.priors[task.dataset, task.name]
    adapter_P, layout = data.draw(data.method, prior)[0], pack.layout_of(data.loaded.fitted(data.method))
    both_SND = encode_images(model, layout, tensors, torch.stack([torch.zeros_like(adapter_P), adapter_P]))
    text_CD = tensors.text_CD.float()
    scores = [image_ND @ text_CD.T for image_ND in both_SND]
    (_, before_C), (_, after_C) = (ranks_of(image_ND, text_CD, tensors.image_of) for image_ND in both_SND)
    captions = [caption for photo in photos for caption in photo.captions]
    for c, caption in enumerate(captions):
        before, after = (_top(photos, scores_NC[:, c]) for scores_NC in scores)
        right = photos[tensors.image_of[c]].path
        yield RetrievalExample(
            task.dataset, task.name, caption, right, before, after, int(before_C[c]), int(after_C[c])
        )


def _top(photos: Sequence[Photo], scores_N: Tensor) -> list[Path]:
    order = torch.sort(scores_N, descending=True, stable=True).indices[:TOP].tolist()
    return [photos[i].path for i in order]
