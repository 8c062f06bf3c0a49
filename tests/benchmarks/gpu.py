"""Figures of training at the size of CLIP ViT-B/16 with random weights, on a GPU: `python tests/benchmarks/gpu.py`.

Images/s, time of a step against batch and number of tasks, peak memory, and model FLOP utilisation against this
machine's own matrix product. `pytest -m gpu` checks that a GPU gives what the CPU gives.

Model FLOPs of a training step: the forward pass, and the gradient of the activations, which costs the same. The frozen
weights need no gradient of their own, so 2 x forward, not the usual 3 x.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import open_clip
import torch
import torch.nn.functional as F

from sglora_cli.build.losses import contrastive_loss
from sglora_cli.build.training import RowAdam
from sglora_cli.config import RuntimeConfig, TrainConfig
from sglora_cli.lora.layout import Layout
from sglora_openclip.model import OpenClipModel

ARCHITECTURE = "ViT-B-16-quickgelu"
TOKENS, WIDTH, BLOCKS, EMBEDDING = 197, 768, 12, 512
GRID = [(1, 16), (1, 64), (4, 16), (8, 16), (16, 16), (32, 16), (32, 32)]
"""Tasks at once, photos of each in a step."""


class Training:
    """Steps of `tasks` tasks at once, `batch` photos of each, rank 2."""

    def __init__(self, tasks: int, batch: int, runtime: RuntimeConfig) -> None:
        torch.manual_seed(0)
        clip = open_clip.create_model(ARCHITECTURE, load_weights=False, pretrained_text=False)
        self.model = OpenClipModel(clip, ARCHITECTURE, runtime)
        self.layout = Layout(self.model.sites, 2, 2.0)
        device = self.model.device
        self.stem = torch.randn(tasks, batch, TOKENS, WIDTH, device=device).half()
        self.text = F.normalize(torch.randn(tasks, batch, EMBEDDING, device=device), dim=-1)
        self.real = torch.ones(tasks, batch, dtype=torch.bool, device=device)
        self.adapters_TP = self.layout.initial(0).to(device).repeat(tasks, 1).requires_grad_()
        self.adam = RowAdam(self.adapters_TP, TrainConfig())
        self.rows, self.images = torch.arange(tasks), tasks * batch

    def step(self) -> None:
        image = self.model.encode_image(self.stem, self.layout, self.adapters_TP)
        loss = contrastive_loss(image, self.text, self.real, self.model.scale).sum()
        (gradient,) = torch.autograd.grad(loss, self.adapters_TP)
        self.adam.step(gradient, self.rows)


def forward_flops(photos: int) -> float:
    """Of the blocks: q, k, v and out (4 W^2 a token), scores and mixing (2 L W), two linears of the MLP (8 W^2)."""
    return photos * BLOCKS * 2.0 * TOKENS * (12 * WIDTH**2 + 2 * TOKENS * WIDTH)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Of one call, after one that does not count."""
    call()
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
        best = max(best, 2 * n**3 / seconds(lambda a=a, b=b: a @ b, device, 10))
    return best


def memory(device: torch.device) -> str:
    return f"{torch.cuda.max_memory_allocated(device) / 2**30:6.1f} GiB" if device.type == "cuda" else "       -"


def table(device: torch.device, grid: list[tuple[int, int]], repeats: int, peak: float, **runtime) -> None:
    print(f"\ntraining step {runtime}\n  tasks  batch    ms/step   images/s   peak memory   TFLOP/s   of the peak")
    for tasks, batch in grid:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        training = Training(tasks, batch, RuntimeConfig(device=str(device), **runtime))
        duration = seconds(training.step, device, repeats)
        rate = 2 * forward_flops(training.images) / duration
        print(
            f"  {tasks:5}  {batch:5}  {duration * 1e3:9.1f}  {training.images / duration:9.0f}  {memory(device):>12}"
            f"  {rate / 1e12:8.1f}  {rate / peak:12.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="One step of two photos: does it run at all?")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU on this machine; --device cpu --small tries the script without one")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    peak = matmul_peak(device, dtype, 512 if options.small else 8192)
    print(f"{name}, torch {torch.__version__}\nmatrix product of this machine, {dtype}: {peak / 1e12:.1f} TFLOP/s")
    if options.small:
        table(device, [(1, 2), (2, 1)], 1, peak)
        return
    table(device, GRID, 10, peak)
    table(device, GRID, 10, peak, checkpointing=True)
    table(device, [(1, 16), (32, 16)], 10, peak, compile=True)  # each shape is compiled anew: few are tried


if __name__ == "__main__":
    main()
