"""Training LoRAs on CLIP ViT-B/16, side by side in one run: `python tests/benchmarks/clip_training.py`.

Rounds alternate, and the median of each round's ratio counts: machines are noisy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from contestants import Dense, Ours, Peft

from sglora_cli.config import RuntimeConfig


def seconds(contestant: Ours | Peft | Dense, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        contestant.step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1, help="Tasks that ours trains at once.")
    parser.add_argument("--batch", type=int, default=16, help="Photos of one task in a step.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", default="auto", help="Of all contestants: auto, fp32, bf16, fp16.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ours = Ours(options.tasks, options.batch, RuntimeConfig(compile=options.compile, precision=options.precision))
    device, dtype = ours.model.device, ours.model.dtype
    others = {
        f"{kind.__name__}, {'cached' if cached else 'as usual'}": kind(options.batch, device, dtype, cached)
        for kind in (Peft, Dense)
        for cached in (False, True)
    }
    for contestant in (ours, *others.values()):
        seconds(contestant, 1)
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *others)}
    for _ in range(options.rounds):
        for name, contestant in (("ours", ours), *others.items()):
            rates[name].append(options.steps * contestant.images / seconds(contestant, options.steps))
    print(f"{device}, {dtype}, {options.threads} threads; {options.tasks} task(s) of {options.batch} photos")
    for name, values in rates.items():
        ratio = statistics.median(o / v for o, v in zip(rates["ours"], values, strict=True))
        print(f"{name:<18} {statistics.median(values):9.2f} images/s   ours is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
