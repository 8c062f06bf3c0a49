"""What the executor `ray` costs and saves: `PYTHONPATH=tests/support python tests/benchmarks/executors.py`.

Recipes with 100 and 1,000 tasks of noise pictures are built with the backbone `tiny`, in one process and by two Ray
workers on this machine, with one thread each. Prints the seconds, and the largest memory of the command and of a
worker. The exit code is 1 if the packs differ, or if memory grows by more than MOST times from the smaller recipe to
the larger one. Needs the extra `ray`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SIZES, MOST = (100, 1_000), 1.5
PHOTOS = 4
RECIPE = """
backbone = "tiny"
default_generator = "top-k"
[train]
epochs = 20
states = 4
joint_epochs = 4
tasks_at_once = 20
[prior]
k = 2
[[source]]
name = "noise"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of tasks")
    sizes = parser.parse_args().sizes
    wrong = []
    memory: dict[tuple[str, int], list[float]] = {}
    print("| tasks | executor | seconds | command, MB | largest worker, MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        _install(site)
        for size in sizes:
            root = Path(folder) / str(size)
            _write(root, size)
            packs = set()
            for executor in ("local", "ray"):
                seconds, memory[executor, size] = _build(root, executor, site)
                shown = " | ".join(f"{bytes_ / 1e6:.0f}" for bytes_ in memory[executor, size])
                print(f"| {size:,} | {executor} | {seconds:.0f} | {shown} |", flush=True)
                packs.add(_hash(root / executor / "cache/packs/noise"))
            wrong += [f"the packs of {size} tasks differ"] if len(packs) > 1 else []
    for place, least, most in zip(
        ("command", "worker"), memory["ray", sizes[0]], memory["ray", sizes[-1]], strict=True
    ):
        wrong += [f"the memory of the {place} grew {most / least:.1f} times"] if most > MOST * least else []
    if wrong:
        sys.exit("; ".join(wrong))


def _install(site: Path) -> None:
    from distributions import HERE, install

    site.mkdir()
    install(site, "sglora-tiny", "sglora_tiny", (HERE / "thirdparty/sglora_tiny.py").read_text())


def _write(root: Path, size: int) -> None:
    from PIL import Image

    images, chance = root / "data/noise/images", random.Random(0)
    images.mkdir(parents=True)
    rows, names = [], [f"thing {n}" for n in range(size)]
    for n, name in enumerate(names):
        for photo in range(PHOTOS):
            Image.frombytes("RGB", (16, 16), chance.randbytes(768)).save(images / f"{n}_{photo}.png")
            caption = f"{name} number {photo}"
            rows.append({"image": f"images/{n}_{photo}.png", "task": name, "split": "train", "captions": [caption]})
    (root / "data/noise/captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    half = size // 2
    roles = f"expert = {json.dumps(names[:half])}\ntraining = {json.dumps(names[half:])}\nunseen = []\n"
    (root / "noise.toml").write_text(RECIPE + roles)


def _build(root: Path, executor: str, site: Path) -> tuple[float, list[float]]:
    """Return the seconds, and the largest memory of the command and of any worker."""
    command = [sys.executable, "-m", "sglora_cli.cli.main", "pack", "build", root / "noise.toml", "--data"]
    command += [root / "data", "--executor", executor, "--force", "-q"]
    own = {"SGLORA_HOME": str(root / executor), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(site)}
    began = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), env={**os.environ, **own}, stdout=subprocess.DEVNULL)
    largest = [0.0, 0.0]
    while process.poll() is None:
        largest[0] = max(largest[0], _memory(psutil.Process(process.pid)))
        workers = [one for one in psutil.process_iter(["cmdline"]) if "ray::" in " ".join(one.info["cmdline"] or [])]
        largest[1] = max([largest[1], *map(_memory, workers)])
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"the build failed with exit code {process.returncode}")
    return time.monotonic() - began, largest


def _memory(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss)
    except psutil.Error:
        return 0.0


def _hash(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()


if __name__ == "__main__":
    main()
