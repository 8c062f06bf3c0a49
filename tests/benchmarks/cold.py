"""`sglora generate` in a new process against `import torch`: `python tests/benchmarks/cold.py`.

Processor time (user and system) and peak memory of whole processes, one thread, bytecode compiled: with the starter
pack, and with made-up experts of CLIP ViT-B/16, whose random weights come from a file. "first" is the first process
that sees the weights: what it finds out of them is remembered. Rounds alternate, and the median of each round's ratio
to `import torch` counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from multiprocessing import Process
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
BACKBONE, ARCHITECTURE = "clip-vit-b-16", "ViT-B-16-quickgelu"


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


def measured(command: Sequence[str], home: Path) -> tuple[float, int]:
    """Processor seconds and peak MiB of a process."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "SGLORA_HOME": str(home)}
    settings.pop("PYTHONDONTWRITEBYTECODE", None)
    silent = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    _, status, used = os.wait4(os.posix_spawn(command[0], command, settings, file_actions=silent), 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        maker = Process(target=make, args=(folder,))  # a process's peak begins with the memory of what started it
        maker.start()
        maker.join()
        generate = [sys.executable, "-m", "sglora_cli.cli.main", "generate", "a photo of a pug", "--force", "-o"]
        generate += [str(folder / "pug.safetensors"), "--pack"]
        clip = [*generate, str(folder / "pack"), "--weights", str(folder / "vit.safetensors")]
        torch = [sys.executable, "-c", "import torch"]
        commands = {"starter": [*generate, "starter"], BACKBONE: clip}
        for name, command in {"import torch": torch, **commands}.items():  # also compiles bytecode
            seconds, memory = measured(command, folder / "home")
            print(f"first {name}: {seconds:.2f} s, {memory} MiB")
        found: dict[str, list[tuple[float, int]]] = {name: [] for name in ("import torch", *commands)}
        for _ in range(rounds):
            for name, runs in found.items():
                runs.append(measured(commands.get(name, torch), folder / "home"))
        for name, runs in found.items():
            ratio = statistics.median(a / b for (a, _), (b, _) in zip(runs, found["import torch"], strict=True))
            seconds = statistics.median(seconds for seconds, _ in runs)
            print(f"{name}: {seconds:.2f} s, {ratio:.2f} x import torch, {max(m for _, m in runs)} MiB")


if __name__ == "__main__":
    main()
