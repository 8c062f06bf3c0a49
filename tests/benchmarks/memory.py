"""Peak memory of builds with more tasks and more saved states: `python tests/benchmarks/memory.py --data DIR`.

The starter backbone, rank 8, four photos a task: what grows is states (T tasks x M of 36,864 parameters), and stems.
Each build is a process of its own with an empty cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

HEAD = """backbone = "starter"
[lora]
rank = 8
alpha = 8
[train]
epochs = {states}
states = {states}
joint_epochs = 2
tasks_at_once = 4
[generators.cvae]
hidden = 32
latent = 8
epochs = 2
"""


def recipe(data: Path, tasks: int, states: int) -> str:
    """A recipe of so many tasks: a third experts, the rest teach the generator."""
    text, left = HEAD.format(states=states), tasks
    for family in ("birds", "flowers", "oxford-iiit-pet"):
        lines = (data / family / "captions.jsonl").read_text().splitlines()
        names = sorted({row["task"] for row in map(json.loads, lines) if row["split"] == "train"})[:left]
        left -= len(names)
        cut = -(-len(names) // 3)
        text += f'[[source]]\nname = "{family}"\nphotos = 4\nexpert = {json.dumps(names[:cut])}\n'
        text += f"training = {json.dumps(names[cut:])}\n"
        if not left:
            return text
    sys.exit(f"{data} has {tasks - left} tasks, fewer than {tasks}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--states", type=int, default=20)
    options = parser.parse_args()
    print("| tasks | M | states on disk, MB | peak memory, MiB |\n|---|---|---|---|")
    for more_tasks, more_states in ((1, 1), (4, 1), (1, 4), (4, 4)):
        tasks, states = options.tasks * more_tasks, options.states * more_states
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "memory.toml"
            file.write_text(recipe(options.data, tasks, states))
            command = [
                sys.executable,
                "-m",
                "sglora_cli.cli.main",
                "pack",
                "build",
                str(file),
                "--data",
                str(options.data),
            ]
            environment = {**os.environ, "SGLORA_HOME": folder, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen([*command, "--json"], env=environment, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                sys.exit(f"the build of {tasks} tasks failed")
        assert isinstance(usage, resource.struct_rusage)
        print(
            f"| {tasks} | {states} | {tasks * states * 36864 * 4 / 1e6:.0f} | {usage.ru_maxrss / 1024:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
