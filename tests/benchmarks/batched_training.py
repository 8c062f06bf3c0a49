"""Tasks trained together against one after the other: `python tests/benchmarks/batched_training.py`.

The same tasks, the same result, in one run; pairs alternate, and the median ratio counts.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch

from sglora_cli.api import Host, RuntimeConfig, TrainConfig
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.values import TaskTensors
from sglora_cli.system.progress import be_quiet

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from in_memory import train_tasks

TASKS, PHOTOS, EPOCHS, PAIRS = 16, 5, 4, 5


def seconds(model, layout: Layout, tasks: list[TaskTensors], at_once: int) -> float:
    config = TrainConfig(epochs=EPOCHS, states=1, tasks_at_once=at_once)
    start = time.perf_counter()
    list(train_tasks(model, layout, tasks, config))
    return time.perf_counter() - start


def main() -> None:
    be_quiet()
    model = Host.load().backbones["starter"].load(RuntimeConfig())
    layout = Layout(tuple(model.sites), 2, 2.0)
    rng = torch.Generator().manual_seed(0)
    for photos in (PHOTOS, 4 * PHOTOS):
        text = torch.nn.functional.normalize(torch.randn(photos, 256, generator=rng), dim=-1)
        tasks = [
            TaskTensors(f"t{t}", torch.randn(photos, 50, 192, generator=rng).half(), text, tuple(range(photos)))
            for t in range(TASKS)
        ]
        seconds(model, layout, tasks, TASKS)
        pairs = [(seconds(model, layout, tasks, 1), seconds(model, layout, tasks, TASKS)) for _ in range(PAIRS)]
        ratio = statistics.median(alone / together for alone, together in pairs)
        print(f"{TASKS} tasks of {photos} photos: alone / together = {ratio:.2f} (median of {PAIRS} pairs)")


if __name__ == "__main__":
    main()
