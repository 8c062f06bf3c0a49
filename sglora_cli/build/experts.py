"""Writes the experts of a build into a pack's folder.

Shapes: E experts, D embedding.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.build.steps import Steps
from sglora_cli.data.encode import image_embeddings, mean_direction
from sglora_cli.lora.gauge import gauge_of
from sglora_cli.pack.content.format_two import save_visual
from sglora_cli.pack.content.gauge import save_gauge
from sglora_cli.pack.content.shards import ExpertShards, save_shard, shard_rows
from sglora_cli.pack.content.tasks import parts
from sglora_cli.plugin.sentences import meaning
from sglora_cli.system.progress import progress


def expert_shards(steps: Steps) -> list[int]:
    """Return the number of experts in each file."""
    return parts(len(steps.experts), shard_rows(steps.layout))


def write_experts(folder: Path, steps: Steps) -> ExpertShards:
    """Write moments, embeddings and the gauge of all experts, whose adapters must be trained."""
    layout, tasks, model = steps.layout, steps.experts, steps.model
    sentences = [t.task.description for t in tasks]
    index_ED, meaning_EW = model.encode_text(sentences).float(), meaning(model, sentences)
    first, shards = 0, expert_shards(steps)
    for shard, count in enumerate(shards):
        some = slice(first, first := first + count)
        found = [steps.moments(t) for t in tasks[some]]
        mean_NP, variance_NP = (torch.stack(numbers) for numbers in zip(*found, strict=True))
        described = {"index": index_ED[some], "meaning": meaning_EW[some]}
        save_shard(folder, shard, {"mu": mean_NP, "var": variance_NP, **described})
    experts = ExpertShards(folder, shards, [t.task.key for t in tasks], layout)
    save_gauge(folder, gauge_of(layout, lambda: (mean_NP for mean_NP, _ in experts.chunks())))
    save_visual(folder, _visual(steps))
    return experts


def _visual(steps: Steps) -> Tensor:
    """Return the normalised mean embedding of each expert's training photos (E, D), the visual condition."""
    visual = []
    for t in progress(steps.experts, "photos of experts"):
        image_ND = image_embeddings(steps.model, t.train.stored(steps.model).stem_N)
        visual.append(mean_direction([1.0] * len(image_ND), image_ND))
    return torch.stack(visual)
