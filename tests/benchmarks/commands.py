"""What whole commands cost in a new process against `import torch`: `python tests/benchmarks/commands.py`.

Processor time (user and system) and peak memory, one thread, bytecode compiled. Commands and `import torch` run in
turn, and the median of each turn's ratio counts: machines are noisy. With --before the program of another version runs
in the same turns, in a home of its own:

    python tests/benchmarks/commands.py --before OTHER_ENVIRONMENT/bin/sglora --bench

CLIP ViT-B/16 has random weights in a file, and a pack of made-up experts. "first" is the first process that sees the
weights: what it finds out of them is remembered. Everything is written to a temporary folder. --bench also runs
`bench --baselines all` on the starter pack twice, which takes minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing import Process
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
BACKBONE, ARCHITECTURE = "clip-vit-b-16", "ViT-B-16-quickgelu"
TORCH = "import torch"
REFUSED = 2
Cost = tuple[float, float]
"""Processor seconds, and the peak of memory in MiB."""


def commands(folder: Path) -> dict[str, list[str]]:
    """Row -> the arguments of the program. Later rows find what the first have made."""
    pug = ["generate", "a photo of a pug", "--pack", "starter", "-o", "pug.safetensors"]
    clip = ["--pack", str(folder / "pack"), "--weights", str(folder / "vit.safetensors")]
    return {
        "generate, starter": [*pug, "--force"],
        "generate, CLIP ViT-B/16": ["generate", "a photo of a pug", *clip, "-o", "clip.safetensors", "--force"],
        "generate into a file that exists": pug,
        "--help": ["--help"],
        "pack list": ["pack", "list"],
        "pack verify starter": ["pack", "verify", "starter"],
        "pack show starter": ["pack", "show", "starter"],
        "inspect an adapter": ["inspect", "pug.safetensors"],
        "inspect a recipe": ["inspect", "starter-pets"],
    }


def write_weights(path: Path) -> None:
    """Random ones, as if they had been there for a while: a file that has just changed is not relied on."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(open_clip.create_model(ARCHITECTURE, load_weights=False).state_dict(), path)
    then = time.time() - 3600
    os.utime(path, (then, then))


def write_pack(folder: Path, weights: Path) -> None:
    from synthetic_packs import synthetic_pack

    from sglora_cli.config import RuntimeConfig
    from sglora_cli.lora.layout import Layout
    from sglora_cli.plugin.host import Host

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights do not say which activation they were trained with
        model = Host.load().backbones[BACKBONE].load(RuntimeConfig(weights=str(weights), device="cpu"))
    synthetic_pack(folder, 10, Layout(tuple(model.sites), 2, 2.0), BACKBONE, model.fingerprint, (512, 512))


def make(folder: Path) -> None:
    os.environ["SGLORA_HOME"] = str(folder / "making")
    write_weights(folder / "vit.safetensors")
    write_pack(folder / "pack", folder / "vit.safetensors")


def measured(command: Sequence[str], home: Path) -> Cost:
    """Of a process, which may refuse what it is asked for."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "SGLORA_HOME": str(home)}
    settings.pop("PYTHONDONTWRITEBYTECODE", None)
    silent = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    _, status, used = os.wait4(os.posix_spawn(command[0], command, settings, file_actions=silent), 0)
    if os.waitstatus_to_exitcode(status) not in (0, REFUSED):
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def turn(work: Mapping[tuple[str, str], Sequence[str]], homes: Mapping[str, Path]) -> dict[tuple[str, str], Cost]:
    """Every command once. Keys: the row, and whose program it is."""
    found = {}
    for (row, who), command in work.items():
        homes[who].mkdir(exist_ok=True)
        os.chdir(homes[who])
        found[row, who] = measured(command, homes[who])
    return found


def table(turns: Sequence[Mapping[tuple[str, str], Cost]], names: Sequence[str]) -> None:
    """Of every row the median ratio to `import torch`, and the highest peak."""
    print("| command |" + "".join(f" {name} |" for name in names) + "".join(f" {name}, MiB |" for name in names))
    print("|---|" + "---:|" * (2 * len(names)))
    for row in dict.fromkeys(row for row, _ in turns[0] if row != TORCH):
        ratios = [statistics.median(one[row, name][0] / one[TORCH, names[-1]][0] for one in turns) for name in names]
        peaks = [max(one[row, name][1] for one in turns) for name in names]
        print(f"| {row} |" + "".join(f" {x:.2f} |" for x in ratios) + "".join(f" {x:.0f} |" for x in peaks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="the `sglora` of another version, in its own environment")
    parser.add_argument("--bench", action="store_true", help="also `bench --baselines all`, twice")
    options = parser.parse_args()
    after = Path(sys.executable).with_name("sglora")
    programs = {"before": options.before.absolute(), "after": after} if options.before else {"after": after}
    names = list(programs)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        maker = Process(target=make, args=(folder,))  # a process's peak begins with the memory of what started it
        maker.start()
        maker.join()
        homes = {name: folder / name for name in names}
        torch: dict[tuple[str, str], Sequence[str]] = {(TORCH, "after"): [sys.executable, "-c", "import torch"]}
        rows = commands(folder)
        work = torch | {(row, name): [str(programs[name]), *rows[row]] for row in rows for name in names}
        turn(torch, homes)  # compiles bytecode
        first = turn(work, homes)
        turns = [turn(work, homes) for _ in range(options.rounds)]
        base = statistics.median(one[TORCH, "after"][0] for one in turns)
        peak = max(one[TORCH, "after"][1] for one in turns)
        print(f"{TORCH}: {base:.2f} s, {peak:.0f} MiB; times are multiples of it\n\nfirst\n")
        table([first], names)
        print(f"\nfrom then on, the median of {options.rounds} turns\n")
        table(turns, names)
        if options.bench:
            bench = ["bench", "--baselines", "all", "--pack", "starter", "--rows", "rows.jsonl"]
            again = torch | {("bench --baselines all", name): [str(programs[name]), *bench] for name in names}
            for title, seen in (("first", [turn(again, homes)]), ("again", [turn(again, homes) for _ in range(3)])):
                print(f"\nbench, {title}\n")
                table(seen, names)
        os.chdir(Path(__file__).parent)
        shutil.rmtree(folder / "making", ignore_errors=True)


if __name__ == "__main__":
    main()
