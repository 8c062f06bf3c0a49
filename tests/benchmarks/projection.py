"""The CVAE at ViT-B/16's size (P = 110,592), dense and with projections: `python tests/benchmarks/projection.py`.

Made-up adapters on disk, 12 experts and 20 training tasks of 100 states: what a task adds to a shared start lies in 40
directions, states wander in 20 more, and every number has noise of its own. Each fit is a process of its own.
Memory is its peak, torch included; a sample is measured warm, condition included, median of 20. The time of a fit is
for one epoch, beside what has to be done once. Shapes: P numbers of an adapter, M states, R coordinates.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from sglora_cli.files.tensor_rows import TensorDraft, TensorRows
from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.lora.prior import prior
from sglora_cli.plugin.values import Material
from sglora_cli.system.hardware import peak_memory
from sglora_cvae import CvaeConfig
from sglora_cvae.cost import cost
from sglora_cvae.network import fit, restore

LAYOUT = Layout(tuple(Site(f"{block}.{x}", 768, 768) for block in range(12) for x in "qkv"), rank=2, alpha=2.0)
EXPERTS, TASKS, STATES, WIDTH = 12, 20, 100, 64


class Files:
    """The made-up experts: their mean is their first state, sigma is 0.1."""

    names, layout = tuple(map(str, range(EXPERTS))), LAYOUT

    def __init__(self, path: Path) -> None:
        self.path = path

    def means(self, rows=None) -> Tensor:
        return torch.stack(
            [TensorRows(self.path, f"expert {e}")[0] for e in (range(EXPERTS) if rows is None else rows)]
        )

    def variances(self, rows=None) -> Tensor:
        return torch.full((EXPERTS if rows is None else len(rows), LAYOUT.size), 0.01)


def write(path: Path) -> None:
    names = {f"expert {e}": 1 for e in range(EXPERTS)} | {f"task {t}": STATES for t in range(TASKS)}
    draft = TensorDraft(path, {name: (torch.float32, (rows, LAYOUT.size)) for name, rows in names.items()}, {})
    dice = torch.Generator().manual_seed(0)
    own_RP, wander_RP = (torch.randn(rank, LAYOUT.size, generator=dice) / rank**0.5 for rank in (40, 20))
    for name, rows in names.items():
        centre_P = torch.randn(40, generator=dice) @ own_RP
        for row in range(rows):
            noise_P = 0.03 * torch.randn(LAYOUT.size, generator=dice)
            draft.put(name, row, (centre_P + 0.1 * torch.randn(20, generator=dice) @ wander_RP + noise_P)[None])
    draft.finish()


def material(path: Path, experts: Files) -> Material:
    dice = torch.Generator().manual_seed(1)
    index_ED, task_TD = (
        torch.nn.functional.normalize(torch.randn(n, WIDTH, generator=dice), dim=1) for n in (EXPERTS, TASKS)
    )
    states = [TensorRows(path, f"task {t}") for t in range(TASKS)]
    return Material(
        experts=experts,
        tasks=tuple(map(str, range(TASKS))),
        states=lambda t: states[t].to("cpu"),
        rows=lambda t, rows: states[t][rows],
        states_of_task=STATES,
        priors=[prior(d, index_ED, experts, 4, 0.05) for d in task_TD],
        joint_P=torch.zeros(LAYOUT.size),
        start_P=None,
        recall=lambda t, adapters_SP: torch.zeros(len(adapters_SP)),
        seed=0,
        note=lambda text: None,
    )


def one(path: Path, size: int, epochs: int) -> None:
    """Fit, store, restore and ask one generator."""
    torch.set_num_threads(1)
    config = CvaeConfig(projection=size, epochs=epochs)
    given = material(path, Files(path))
    began = time.monotonic()
    fitted, facts = fit(given, config)
    seconds, memory = time.monotonic() - began, peak_memory()
    file = path.with_name(f"cvae-{size}.safetensors")
    save_tensors(file, fitted.tensors(), {})
    again = restore(given.experts, load_tensors(file)[0])
    asked = []
    for seed in range(21):
        began = time.monotonic()
        again.generate(given.priors[seed % TASKS], 1, seed, 1.0)
        asked.append(time.monotonic() - began)
    told = cost(LAYOUT.size, TASKS, STATES, config)
    mega, share, bytes_ = 1e6, facts.get("projection", {}).get("kept_share", 1.0), file.stat().st_size
    print(
        f"| {size or 'dense'} | {facts['parameters'] / mega:.1f} | {memory / mega:.0f} ({told['bytes'] / mega:.0f}) | "
        f"{seconds:.0f} ({told['seconds']:.0f}) | {bytes_ / mega:.1f} ({told['stored_bytes'] / mega:.1f}) | "
        f"{1000 * median(asked[1:]):.1f} | {share:.4f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 0], help="R; 0: dense")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write)
        return
    if options.one:
        path, size, epochs = json.loads(options.one)
        one(Path(path), size, epochs)
        return
    print("| R | parameters, million | memory, MB (told) | fit, s (told) | file, MB (told) | sample, ms | kept |")
    print("|---" * 7 + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "states.safetensors"
        # A child's peak starts with its parent's, so the parent does nothing.
        subprocess.run([sys.executable, __file__, "--write", path], check=True)
        for size in options.sizes:
            own = json.dumps([str(path), size, options.epochs])
            subprocess.run([sys.executable, __file__, "--one", own], check=True)


if __name__ == "__main__":
    main()
