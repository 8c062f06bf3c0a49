"""What whole commands cost: `PYTHONPATH=tests/support python tests/benchmarks/commands.py`.

Each runs in a process of its own. Processor seconds on one thread are printed as multiples of `import torch`, which
runs in turn with them: machines are noisy. With --before the program of another version runs in the same turns:

    PYTHONPATH=tests/support python tests/benchmarks/commands.py --before OTHER_VENV/bin/sglora --bench

The rows of CLIP need no weights of CLIP: they use random ones, and a pack of made-up experts. Everything is written to
a temporary folder. --bench also runs `bench --baselines all` on the starter pack twice, which takes minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

SENTENCE = "a photo of a pug"
PUG = "pug.safetensors"
Cost = tuple[float, float]
"""Processor seconds, and the peak of memory in MiB."""


def commands(clip: list[str]) -> dict[str, list[str]]:
    """Row -> the arguments of the program. The first is run once before the others: they find its file."""
    return {
        "generate, starter": ["generate", SENTENCE, "--pack", "starter", "--force", "-o", PUG],
        "generate, CLIP ViT-B/16": ["generate", SENTENCE, "--force", "-o", "clip.safetensors", *clip],
        "generate into a file that exists": ["generate", SENTENCE, "--pack", "starter", "-o", PUG],
        "--help": ["--help"],
        "pack list": ["pack", "list"],
        "pack verify starter": ["pack", "verify", "starter"],
        "pack show starter": ["pack", "show", "starter"],
        "inspect an adapter": ["inspect", PUG],
        "inspect a recipe": ["inspect", "starter-pets"],
    }


def cost(command: list[str], folder: Path, home: Path) -> Cost:
    """Of a process, which may refuse with exit code 2."""
    environment = {**os.environ, "SGLORA_HOME": str(home), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    said = process.stderr.read() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 2):
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}\n{said}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def made_for_clip(folder: Path, home: Path) -> list[str]:
    """Random weights of ViT-B/16 and a pack of ten made-up experts: the options that name them."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from synthetic_packs import synthetic_pack

    from sglora_cli.config import RuntimeConfig
    from sglora_cli.lora.layout import Layout
    from sglora_cli.plugin.host import Host

    torch.manual_seed(0)
    clip = open_clip.create_model("ViT-B-16-quickgelu", load_weights=False)
    weights = folder / "vit.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in clip.state_dict().items()}, weights)
    model = Host.load().backbones["clip-vit-b-16"].load(RuntimeConfig(weights=str(weights), device="cpu"))
    layout = Layout(tuple(model.sites), 2, 2.0)
    synthetic_pack(home / "cache/packs/vit", 10, layout, "clip-vit-b-16", model.fingerprint, (512, 512))
    return ["--pack", "vit", "--weights", str(weights)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="the `sglora` of another version, in its own environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bench", action="store_true", help="also `bench --baselines all`, twice")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    after = Path(sys.executable).with_name("sglora")
    programs = {"before": options.before.absolute(), "after": after} if options.before else {"after": after}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        homes = {which: folder / which for which in programs}
        clip = made_for_clip(folder, homes["after"])
        if "before" in homes:
            shutil.copytree(homes["after"] / "cache/packs", homes["before"] / "cache/packs")
        rows = commands(clip)
        costs: dict[tuple[str, str], list[Cost]] = {}
        torch_seconds = []
        for turn in range(options.rounds + 1):
            torch_seconds.append(cost([sys.executable, "-c", "import torch"], folder, homes["after"])[0])
            for row, arguments in rows.items():
                for which, program in programs.items():
                    costs.setdefault((row, which), []).append(cost([str(program), *arguments], folder, homes[which]))
            print(f"turn {turn}" + " (does not count: caches are filled)" * (not turn), file=sys.stderr)
        for row in ("bench --baselines all", "the same again") if options.bench else ():
            torch_seconds.append(cost([sys.executable, "-c", "import torch"], folder, homes["after"])[0])
            for which, program in programs.items():
                command = [str(program), "bench", "--baselines", "all", "--pack", "starter", "--rows", "rows.jsonl"]
                (folder / which).mkdir(exist_ok=True)
                costs[row, which] = [(0.0, 0.0), cost(command, folder / which, homes[which])]
    base = statistics.median(torch_seconds[1:])
    print(f"\n`import torch`: {base:.2f} s of processor time, median; the other figures are multiples of it\n")
    print("| command |" + "".join(f" {which} |" for which in programs) + "".join(f" MiB {w} |" for w in programs))
    print("|---|" + "---:|" * (2 * len(programs)))
    for row in dict.fromkeys(row for row, _ in costs):
        found = [[statistics.median(column) for column in zip(*costs[row, w][1:], strict=True)] for w in programs]
        ratios = "".join(f" {seconds / base:.2f} |" for seconds, _ in found)
        print(f"| {row} |{ratios}" + "".join(f" {peak:.0f} |" for _, peak in found))


if __name__ == "__main__":
    main()
