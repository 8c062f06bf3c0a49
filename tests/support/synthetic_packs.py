"""Packs of any number of made-up experts, written a file at a time."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sglora_cli.lora.gauge import gauge_of
from sglora_cli.lora.layout import Layout
from sglora_cli.pack.content.gauge import save_gauge
from sglora_cli.pack.content.manifest import FORMAT
from sglora_cli.pack.content.shards import save_shard, shard_rows
from sglora_cli.pack.content.tasks import parts, write_tasks
from sglora_cli.pack.coverage import SeenTasks, thinned
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.writer import write_manifest


def synthetic_pack(
    folder: Path, experts: int, layout: Layout, backbone: str, fingerprint: str, widths: tuple[int, int]
) -> Pack:
    """A pack of experts near one start, with directions at random for their sentences.

    widths: of the backbone's embeddings, and of meaning.
    """
    rng = torch.Generator().manual_seed(0)

    def unit(count: int, width: int = widths[0]) -> Tensor:
        return F.normalize(torch.randn(count, width, generator=rng), dim=1)

    start_P, shards = layout.initial(0), parts(experts, shard_rows(layout))
    for shard, count in enumerate(shards):
        mean_NP = start_P + 0.01 * torch.randn(count, layout.size, generator=rng)
        variance_NP = (1e-3 * torch.randn(count, layout.size, generator=rng)) ** 2
        described = {"index": unit(count), "meaning": unit(count, widths[1])}
        save_shard(folder, shard, {"mu": mean_NP, "var": variance_NP, **described})
    save_gauge(folder, gauge_of(layout, lambda: [mean_NP[:64]]))
    tasks = [
        {
            "key": f"synthetic/thing {n:06d}",
            "dataset": "synthetic",
            "name": f"thing {n:06d}",
            "role": "expert",
            "description": f"a photo of a thing {n:06d}",
            "train_photos": 60,
            "test_photos": 0,
        }
        for n in range(experts)
    ]
    write_tasks(folder, "expert", tasks, shards)
    seen = [str(task["key"]) for task in thinned([tasks])]
    others_T = torch.zeros(len(seen), dtype=torch.float64)
    SeenTasks(tuple(seen), unit(len(seen), widths[1]), unit(70, widths[1]), others_T).save(folder)
    manifest = {
        "format": FORMAT,
        "name": folder.name,
        "made_by": "tests",
        "recipe": {"summary": "synthetic"},
        "backbone": backbone,
        "fingerprint": fingerprint,
        "layout": layout.to_json(),
        "prior": {"k": 4, "tau": 0.05},
        "default_generator": "top-k",
        "generators": {},
        "counts": {"expert": experts, "training": 0, "unseen": 0},
        "shards": shards,
    }
    write_manifest(folder, manifest)
    return Pack(folder)
