"""Checks and figures on a CUDA machine, without network: `python -m tests.gpu`.

Full-size CLIP ViT-B/16 with random weights: adapters on the GPU equal those on the CPU, training lowers
the loss, a pack's experts become adapters, recall is measured; then images/s, step time against batch and
number of tasks, peak memory, model FLOP utilisation against this machine's own matrix product, and PEFT
and a dense LoRA loop beside it. `--device cpu --small` runs every line on any machine, for its own test.

Model FLOPs of a training step: the forward pass, and the gradient of the activations, which costs the
same. The frozen weights need no gradient of their own, so 2 x forward, not the usual 3 x.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
from contestants import Dense, Ours, Peft, new_clip

from sglora_cli.bench.retrieval import recalls
from sglora_cli.build.training import train_joint, train_tasks
from sglora_cli.config import RuntimeConfig, TrainConfig
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.prior import moments
from sglora_cli.plugin.testing.toys import ToyExperts, material
from sglora_cli.plugin.values import TaskTensors
from sglora_cli.system.progress import be_quiet
from sglora_cli.testing import BACKBONE_CHECKS, adapters, images, layout_of, run_check

TOKENS, WIDTH, BLOCKS, PATCH = 197, 768, 12, 16 * 16 * 3


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


def check_features(device: torch.device) -> None:
    from sglora_openclip.model import OpenClipModel

    there, here = (
        OpenClipModel(new_clip(), "ViT-B-16-quickgelu", RuntimeConfig(device=str(d), precision="fp32"))
        for d in (device, "cpu")
    )
    torch.backends.cuda.matmul.allow_tf32 = False
    layout, stem = layout_of(here), here.stem(images(2))
    flat_TP = adapters(layout, 2)
    with torch.no_grad():
        gap = (there.encode_image(stem, layout, flat_TP).cpu() - here.encode_image(stem, layout, flat_TP)).abs().max()
    print(f"adapters on {device} against the CPU, fp32: largest difference {float(gap):.1e}")
    assert float(gap) < 1e-4
    for check in BACKBONE_CHECKS:
        if wrong := run_check(check, there):
            raise SystemExit(f"{check.__name__}: {wrong}")
    print(f"conformance kit on {device}: {len(BACKBONE_CHECKS)} checks passed")


def check_cvae(device: torch.device) -> None:
    """Fitted there and here, from the same start with the same noise: the same adapter but for rounding."""
    from sglora_cvae import CvaeConfig
    from sglora_cvae.network import fit

    given = material(ToyExperts())
    for projection in (0, 4):
        config = CvaeConfig(hidden=32, latent=4, epochs=30, projection=projection)
        there, here = (fit(replace(given, device=str(d)), config)[0] for d in (device, "cpu"))
        made = [fitted.generate(given.priors[0], 1, 0, 1.0) for fitted in (there, here)]
        gap = (made[0] - made[1]).norm() / (made[1] - given.priors[0].mean_P).norm()
        print(f"CVAE fitted on {device} against the CPU, R {projection}: {float(gap):.1e} of what it adds to mu*")
        assert float(gap) < 0.02


def check_way(device: torch.device, photos: int, epochs: int, **runtime) -> None:
    """Train experts, mix them for a sentence, measure: the way of `pack build`, `generate` and `bench`."""
    from sglora_openclip.model import OpenClipModel

    model = OpenClipModel(new_clip(), "ViT-B-16-quickgelu", RuntimeConfig(device=str(device), **runtime))
    layout = Layout(model.sites, 2, 2.0)
    names = ("pug", "horse", "sunflower")
    tasks = []
    for name in names:
        captions = [f"a photo of a {name} number {n}" for n in range(photos)]
        stem = model.stem(images(photos)).half()
        tasks.append(TaskTensors(name, stem, model.encode_text(captions), tuple(range(photos))))
    config = TrainConfig(epochs=epochs, states=2, batch=photos, learning_rate=1e-3)
    states = dict(zip(names, (s for _, s in train_tasks(model, layout, tasks, config)), strict=True))
    with torch.no_grad():
        for task in tasks:
            trained = states[task.name][-1:]
            before, after = (
                float(F.cross_entropy(model.scale * image @ task.text_CD.to(image).T, torch.arange(photos).to(device)))
                for image in (model.encode_image(task.stem_N), model.encode_image(task.stem_N, layout, trained)[0])
            )
            assert after < before, f"{task.name}: training did not lower the loss ({before:.3f} -> {after:.3f})"
    print(f"training of {len(names)} tasks {runtime or ''}: the loss of the last fell from {before:.3f} to {after:.3f}")
    joint_P = train_joint(model, layout, tasks, replace(config, joint_epochs=epochs))
    print(f"one adapter trained on all of them: update norm {float(layout.update_norm(joint_P)):.3f}")
    mean_KP = torch.stack([s.mean(dim=0) for s in states.values()])
    alpha_K = torch.softmax(model.encode_text(names) @ model.encode_text(["a photo of a dog"])[0] / 0.05, dim=0)
    mixed_P, _, _ = moments(alpha_K, mean_KP, torch.zeros_like(mean_KP))
    with torch.no_grad():
        image_ND = model.encode_image(tasks[0].stem_N, layout, mixed_P[None])[0].cpu()
    found = recalls(image_ND, tasks[0].text_CD, tasks[0].image_of)
    print(f"an adapter mixed from them, measured: I2T R@1 {found['I2T', 1]:.1f}, T2I R@1 {found['T2I', 1]:.1f}")


def memory(device: torch.device) -> str:
    return f"{torch.cuda.max_memory_allocated(device) / 2**30:6.1f} GiB" if device.type == "cuda" else "       -"


def figures(device: torch.device, grid: list[tuple[int, int]], repeats: int, peak: float, **runtime) -> float:
    """Prints a table; returns the best share of the peak."""
    print(f"\ntraining step {runtime}\n  tasks  batch    ms/step   images/s   peak memory   TFLOP/s   of the peak")
    best = 0.0
    for tasks, batch in grid:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        ours = Ours(tasks, batch, RuntimeConfig(device=str(device), **runtime))
        took = seconds(ours.step, device, repeats)
        rate = 2 * forward_flops(ours.images) / took
        best = max(best, rate / peak)
        print(
            f"  {tasks:5}  {batch:5}  {took * 1e3:9.1f}  {ours.images / took:9.0f}  {memory(device):>12}"
            f"  {rate / 1e12:8.1f}  {rate / peak:12.1%}"
        )
        del ours
    return best


def against_others(device: torch.device, tasks: int, batch: int, repeats: int, **runtime) -> None:
    ours = Ours(tasks, batch, RuntimeConfig(device=str(device), **runtime))
    rates = {f"ours, {tasks} tasks at once {runtime}": ours.images / seconds(ours.step, device, repeats)}
    dtype = ours.model.dtype
    del ours
    for kind in (Peft, Dense):
        for cached in (False, True):
            other = kind(batch, device, dtype, cached)
            label = f"{kind.__name__}, {'pixels and texts ready-made' if cached else 'pictures and captions anew'}"
            rates[label] = other.images / seconds(other.step, device, repeats)
    print(f"\nside by side, {tasks} tasks of batch {batch}, {dtype}")
    first = next(iter(rates.values()))
    for label, rate in rates.items():
        print(f"  {rate:9.1f} images/s  {first / rate:6.2f} x  {label}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="A few steps of few photos: does it run at all?")
    parser.add_argument("--only", default="", help="checks or figures")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU on this machine; --device cpu --small runs the checks here")
    be_quiet(True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    if options.only != "figures":
        check_features(device)
        check_cvae(device)
        for runtime in ({}, {"checkpointing": True}, *(({"precision": "fp16"},) if device.type == "cuda" else ())):
            check_way(device, *((3, 2) if options.small else (12, 20)), **runtime)
    if options.only != "checks":
        peak = matmul_peak(device, dtype, 512 if options.small else 8192)
        print(f"\nmatrix product of this machine, {dtype}: {peak / 1e12:.1f} TFLOP/s")
        grid = [(1, 2), (2, 1)] if options.small else [(1, 16), (1, 64), (4, 16), (8, 16), (16, 16), (32, 16), (32, 32)]
        repeats, sizes = (1, (2, 2)) if options.small else (10, (32, 16))
        figures(device, grid, repeats, peak)
        against_others(device, *sizes, repeats)
        if not options.small:
            figures(device, grid, repeats, peak, checkpointing=True)
            # A new shape is compiled anew, so few are tried.
            figures(device, [(1, 16), (32, 16)], repeats, peak, compile=True)
            against_others(device, *sizes, repeats, compile=True)


if __name__ == "__main__":
    main()
