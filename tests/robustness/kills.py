"""Kill -9 a build at random moments, go on each time, compare bytes: `python tests/robustness/kills.py --data DIR`.

A first build runs through and says how long it takes. A second one, from an empty cache, is killed at moments drawn
evenly over that time, counted over its restarts, and then runs to its end. Checkpoints are written every second
instead of every 20, so that it gets on between kills. One thread: bytes depend on the number of threads.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = """import sys, sglora_cli.files.tensors as c
c.SECONDS = 1.0
from sglora_cli.cli.main import main
main(sys.argv[1:])"""


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--recipe", default="starter")
    parser.add_argument("--limit", type=int, default=3, help="tasks of each role and source")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:

        def start(name: str) -> subprocess.Popen[bytes]:
            home, out = Path(folder) / f"{name}-home", Path(folder) / f"{name}-pack"
            command = [sys.executable, "-c", PROGRAM, "pack", "build", options.recipe, "--data", str(options.data)]
            command += ["-o", str(out), "--limit", str(options.limit), "--log", str(Path(folder) / f"{name}.jsonl")]
            environment = {**os.environ, "SGLORA_HOME": str(home), "OMP_NUM_THREADS": "1"}
            return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        began = time.monotonic()
        assert start("whole").wait() == 0, "the build fails without being killed"
        whole = time.monotonic() - began
        print(f"uninterrupted: {whole:.0f} s", flush=True)
        moments = sorted(dice.uniform(0, whole) for _ in range(options.kills))
        kills, spent = 0, 0.0
        for before, moment in zip([0.0, *moments], moments, strict=False):
            wait = max(2.0, moment - before)
            process = start("killed")
            try:
                process.wait(wait)
                break  # it came to its end
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills, spent = kills + 1, spent + wait
        began = time.monotonic()
        assert start("killed").wait() == 0, "the killed build does not go on"
        spent += time.monotonic() - began
        first, second = hashes(Path(folder) / "whole-pack"), hashes(Path(folder) / "killed-pack")
        lines = (Path(folder) / "killed.jsonl").read_text().splitlines()
        resumed = sum('"resumed"' in line for line in lines)
        print(f"killed {kills} times, then finished: {spent:.0f} s, {resumed} trainings went on from a checkpoint")
        equal = sum(second.get(name) == value for name, value in first.items())
        print(f"{equal} of {len(first)} files are the same bytes")
        if first != second:
            sys.exit("they differ: " + ", ".join(name for name in first if first[name] != second.get(name)))


if __name__ == "__main__":
    main()
