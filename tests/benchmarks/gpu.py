"""Figures of training at the size of CLIP ViT-B/16 with random weights, on a GPU: `python tests/benchmarks/gpu.py`.

1. What each change to the step brings: the same steps, each way with one change more than the way before, in turn.
2. Time of a step against tasks and photos; peak memory; share of this machine's own matrix product.
3. Epochs as a build runs them: with steps recorded or not, with photos on the device or in the CPU's memory.

`pytest -m gpu` checks that a GPU gives what the CPU gives. Model FLOPs of a training step: the forward pass, and the
gradient of the activations, which costs the same. The frozen weights need no gradient of their own, so 2 x forward.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unittest.mock import patch

import open_clip
import torch
import torch.nn.functional as F

from sglora_cli.build import training
from sglora_cli.build.batches import Batch
from sglora_cli.build.task_stack import TaskStack
from sglora_cli.config import RuntimeConfig, TrainConfig
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.values import TaskTensors
from sglora_openclip import tower
from sglora_openclip.model import OpenClipModel


@dataclass(frozen=True)
class Size:
    """Of a CLIP, and the shapes that are measured: tasks at once, photos of each in a step."""

    tokens: int
    width: int
    blocks: int
    embedding: int
    changes: Sequence[tuple[int, int]]
    grid: Sequence[tuple[int, int]]
    matrix: int
    rounds: int

    def clip(self) -> torch.nn.Module:
        torch.manual_seed(0)
        if self == FULL:
            return open_clip.create_model("ViT-B-16-quickgelu", load_weights=False, pretrained_text=False)
        text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
        vision = {"image_size": 32, "layers": self.blocks, "width": self.width, "head_width": 8, "patch_size": 8}
        return open_clip.CLIP(self.embedding, vision, text, quick_gelu=True)

    def flops(self, photos: int) -> float:
        """Of the blocks' forward pass: q, k, v and out (4 W^2 a token), scores and mixing (2 L W), the MLP (8 W^2)."""
        return photos * self.blocks * 2.0 * self.tokens * (12 * self.width**2 + 2 * self.tokens * self.width)


GRID = [(1, 16), (1, 64), (4, 16), (8, 16), (16, 16), (32, 16), (32, 32)]
FULL = Size(197, 768, 12, 512, [(1, 16), (4, 16), (32, 16)], GRID, 8192, 5)
SMALL = Size(17, 32, 2, 16, [(1, 2)], [(1, 2), (2, 2)], 256, 1)


@dataclass(frozen=True)
class Way:
    """How a step is computed. The defaults are what a build does."""

    name: str
    copies: bool = True
    folded: bool = True
    narrow: bool = True
    recorded: bool | None = None
    """None: if it is small."""
    compiled: bool = False
    checkpointing: bool = False

    def model(self, clip: torch.nn.Module, device: torch.device) -> OpenClipModel:
        runtime = RuntimeConfig(
            device=str(device),
            precision="bf16" if self.copies else "fp32",
            compile=self.compiled,
            checkpointing=self.checkpointing,
        )
        with patch.object(tower, "folded", tower.folded if self.folded else lambda layers: layers):
            model = OpenClipModel(copy.deepcopy(clip), "ViT-B-16-quickgelu", runtime)
        if not self.copies:  # float32 weights under autocast, which casts them in every step
            model.tower.dtype, model.tower.own = torch.bfloat16, False
        if not self.narrow:
            model.tower.stream = torch.float32
        return model

    def training(
        self, clip: torch.nn.Module, size: Size, tasks: int, photos: int, batch: int, device: torch.device
    ) -> training.OwnTraining:
        """Of random tasks, rank 2."""
        model, rng = self.model(clip, device), torch.Generator().manual_seed(0)
        layout = Layout(model.sites, 2, 2.0)
        made = [
            TaskTensors(
                f"task {n}",
                torch.randn(photos, size.tokens, size.width, generator=rng).half(),
                F.normalize(torch.randn(photos, size.embedding, generator=rng), dim=-1),
                tuple(range(photos)),
            )
            for n in range(tasks)
        ]
        limit = training.SMALL if self.recorded is None else 10**6 * self.recorded
        with patch.object(training, "SMALL", limit):
            return training.OwnTraining(model, layout, made, TrainConfig(batch=batch), layout.initial(0))


DEFAULT = Way("default")
OFF = {"folded": False, "narrow": False, "recorded": False}
CHANGES = [
    Way("autocast of float32 weights", copies=False, **OFF),
    Way("+ frozen copies in bf16", **OFF),
    Way("+ QuickGELU folded", narrow=False, recorded=False),
    Way("+ residual sums in bf16", recorded=False),
    Way("+ recorded as a CUDA graph", recorded=True),
]
COMPILED = [Way("as it is", recorded=False), Way("compiled as one graph", recorded=False, compiled=True)]


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Of one call."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronise(device)
    return (time.perf_counter() - start) / repeats


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """FLOP/s of this machine's own matrix product, the best of three sizes."""
    best = 0.0
    for n in (size // 4, size // 2, size):
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in "ab")
        a @ b
        best = max(best, 2 * n**3 / seconds(lambda a=a, b=b: a @ b, device, 10))
    return best


def step_of(learning: training.OwnTraining, tasks: int, batch: int) -> Callable[[], None]:
    """One step of all tasks, after some that do not count: they load kernels, compile, and are recorded."""
    rows = list(range(batch))
    (shown,) = learning.stack.tables([[(n, Batch(rows, rows)) for n in range(tasks)]], learning.width)
    for _ in range(5):
        learning.run(learning._step, shown)
    return lambda: learning.run(learning._step, shown)


def compare(
    clip: torch.nn.Module,
    size: Size,
    device: torch.device,
    peak: float,
    shapes: Sequence[tuple[int, int]],
    ways: Sequence[Way],
) -> None:
    """The ways in turn, `size.rounds` times; the median counts."""
    for tasks, batch in shapes:
        steps = [step_of(way.training(clip, size, tasks, batch, batch, device), tasks, batch) for way in ways]
        rounds = [[seconds(step, device, 5) for step in steps] for _ in range(size.rounds)]
        print(f"\n{tasks} x {batch}: ms a step, as a part of the first way's, share of the matrix product")
        medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
        for way, took in zip(ways, medians, strict=True):
            share = 2 * size.flops(tasks * batch) / took / peak
            print(f"  {way.name:30}{took * 1e3:9.1f}{took / medians[0]:9.2f}{share:9.1%}")


def table(clip: torch.nn.Module, size: Size, device: torch.device, peak: float, way: Way) -> None:
    print(f"\ntraining step, {way.name}\n  tasks  batch    ms/step   images/s   peak memory   TFLOP/s   of the peak")
    for tasks, batch in size.grid:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        took = seconds(step_of(way.training(clip, size, tasks, batch, batch, device), tasks, batch), device, 10)
        memory = f"{torch.cuda.max_memory_allocated(device) / 2**30:6.1f} GiB" if device.type == "cuda" else "       -"
        rate = 2 * size.flops(tasks * batch) / took
        print(
            f"  {tasks:5}  {batch:5}  {took * 1e3:9.1f}  {tasks * batch / took:9.0f}  {memory:>12}"
            f"  {rate / 1e12:8.1f}  {rate / peak:12.1%}"
        )


def epochs(clip: torch.nn.Module, size: Size, device: torch.device) -> None:
    """Epochs of four steps, 16 tasks at once, five and 32 photos of each in a step."""
    print("\nepochs of four steps, ms a step")
    print("  tasks  batch   recorded if small   not recorded   nor are photos on the device")
    for tasks, batch in [(16, 5), (16, 32)] if size == FULL else [(2, 2)]:
        took = []
        for way, resident in ((DEFAULT, True), (Way("", recorded=False), True), (Way("", recorded=False), False)):
            stack = lambda of, place, _, resident=resident: TaskStack(of, place, resident)  # noqa: E731
            with patch.object(training, "TaskStack", stack):
                learning = way.training(clip, size, tasks, 4 * batch, batch, device)
            learning.advance(), learning.advance()
            took.append(seconds(learning.advance, device, 3) / 4 * 1e3)
        print(f"  {tasks:5}  {batch:5}  {took[0]:18.1f}  {took[1]:13.1f}  {took[2]:28.1f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="A tiny CLIP: does it run at all?")
    parser.add_argument("--no-compile", action="store_true", help="Without torch.compile, which takes a minute or two.")
    options = parser.parse_args(arguments)
    device, size = torch.device(options.device), SMALL if options.small else FULL
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU on this machine; --device cpu --small tries the script without one")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak = matmul_peak(device, torch.bfloat16, size.matrix)
    print(f"{name}, torch {torch.__version__}\nmatrix product of this machine in bf16: {peak / 1e12:.2f} TFLOP/s")
    clip = size.clip()
    compare(clip, size, device, peak, size.changes, CHANGES)
    table(clip, size, device, peak, DEFAULT)
    epochs(clip, size, device)
    table(clip, size, device, peak, Way("checkpointing", checkpointing=True))
    if not options.no_compile:  # one shape: each is compiled anew
        compare(clip, size, device, peak, size.changes[-1:], COMPILED)


if __name__ == "__main__":
    main()
