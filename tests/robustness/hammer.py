"""Many processes at one cache: `python tests/robustness/hammer.py --processes 8 --seconds 300`.

Each process does random things, one after the other, at one SGLORA_HOME: it generates, builds, imports, exports, adds
to, removes from, removes, verifies and lists a handful of packs of the tests' tiny backbone, and measures into one rows
file. Commands are called in the process (starting Python would be most of the work); one in twenty is a process of its
own, and some of those are killed. Throughout: only SgloraErrors come out, with their exit codes, and "bad file" only
for a file that is gone; `pack list` always works; a listed pack verifies, or was replaced meanwhile and says so. At the
end: everything listed verifies and works, nothing waits for a lock, every adapter and rows file is whole, and no draft
and no half of a pack is left once every pack was written once more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE / "support"))
NAMES = ("toys", "one", "two", "three")
QUICK = {"epochs = 6": "epochs = 2\njoint_epochs = 2", "states = 4": "states = 2", "epochs = 200": "epochs = 2"}
WORDS = ("mug", "nest", "jar", "kite", "lamp", "ball")
FINE = {0, 2, 3, 5, 6}
"""Exit codes: done, taken or refused, unknown name, does not fit, changed meanwhile. 4 only for what is gone."""


def command(rng: random.Random, folder: Path, number: int) -> tuple[str, list[str]]:
    """(kind, arguments) of something to do."""
    name, other = rng.choice(NAMES), rng.choice(NAMES)
    own = folder / "own"
    text = f"a photo of a {rng.choice(WORDS)} {rng.randrange(2)}"
    pick = ["--pack", name, "--force"]
    kinds = {
        "list": (3, ["pack", "list", "--json"]),
        "verify": (4, ["pack", "verify", name]),
        "show": (1, ["pack", "show", name]),
        "generate": (5, ["generate", text, *pick, "--samples", "3", "--generator", rng.choice(("cvae", "top-k"))]),
        "generate -o": (3, ["generate", text, *pick, "-o", str(folder / f"{rng.randrange(3)}.safetensors")]),
        "search": (2, ["search", str(folder / "data/toys/images"), text, "--backbone", "tiny", "--top", "3"]),
        "import": (4, ["pack", "import", str(folder / "toys.sglora.zip"), "--name", name, "--force"]),
        "import own": (2, ["pack", "import", str(own / f"{other}.sglora.zip"), "--name", name, "--force"]),
        "export": (2, ["pack", "export", name, "-o", str(own / f"{other}.sglora.zip"), "--force"]),
        "add": (3, ["pack", "add", name, str(folder / "mug-peft"), "--text", text, "--name", f"toys/{text[13:]}"]),
        "remove expert": (2, ["pack", "remove", name, f"toys/{text[13:]}", "--yes"]),
        "remove": (1, ["pack", "remove", name, "--yes"]),
        "build": (1, ["pack", "build", str(folder / "toys.toml"), "--data", str(folder / "data"), "--force"]),
        "bench": (1, ["bench", *pick[:2], "--baselines", "top-k,nearest", "--resamples", "100"]),
    }
    kind = rng.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
    arguments = kinds[kind][1]
    if kind == "bench" and rng.random() < 0.5:
        arguments += ["--rows", str(folder / "rows.jsonl")]
    return kind, arguments


def in_process(arguments: list[str]) -> tuple[int, str]:
    """(exit code, stderr) of a command; 1 with its traceback for a foreign exception."""
    import traceback

    from click.testing import CliRunner

    from sglora_cli.cli.main import main

    result = CliRunner().invoke(main, arguments, catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        return 1, "".join(traceback.format_exception(result.exception))
    return result.exit_code, result.stderr


def as_process(arguments: list[str], rng: random.Random) -> tuple[int, str]:
    """The same by a process of its own, which may be killed: -9."""
    program = [sys.executable, "-m", "sglora_cli.cli.main", *arguments]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, output = process.communicate(timeout=rng.uniform(1, 10) if rng.random() < 0.3 else None)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return -9, ""
    return process.returncode, output


def worker(number: int, seed: int, folder: Path, until: float, results: Any) -> None:
    """Do things until the time is over; what came out goes into the queue."""
    import torch

    torch.set_num_threads(1)
    rng = random.Random(seed * 1000 + number)
    while time.time() < until:
        kind, arguments = command(rng, folder, number)
        began = time.monotonic()
        if rng.random() < 0.05:
            code, output = as_process(arguments, rng)
            kind += " (process)"
        else:
            code, output = in_process(arguments)
        message = next((line for line in output.splitlines() if line.startswith("error: ")), "") if code else ""
        fine = code in FINE | {-9} or (code == 4 and message.endswith(" does not exist"))
        results.put((kind, code, message, "" if fine else output, time.monotonic() - began))
    results.put(None)


def prepare(folder: Path) -> None:
    """A home with the pack `toys`, its archive, and an adapter as a PEFT folder."""
    (folder / "own").mkdir()
    for arguments in (
        ["pack", "build", folder / "toys.toml", "--data", folder / "data"],
        ["pack", "export", "toys", "-o", folder / "toys.sglora.zip"],
        ["generate", "a photo of a mug", "--pack", "toys", "--force", "-o", folder / "mug.safetensors"],
        ["export", folder / "mug.safetensors", "-o", f"{folder / 'mug-peft'}/"],
    ):
        code, output = in_process([str(a) for a in arguments])
        assert code == 0, output


def left(folder: Path) -> list[str]:
    """What is wrong at the end."""
    from sglora_cli.bench.rows_file import read_rows
    from sglora_cli.errors import SgloraError

    wrong = []
    home = folder / "home"
    code, output = in_process(["pack", "list", "--json"])
    wrong += [output] if code else []
    for path in sorted((home / "cache/packs").glob("[!.]*")):
        for arguments in (["pack", "verify", path.name], ["generate", "a mug", "--pack", path.name, "--force"]):
            code, output = in_process(arguments)
            wrong += [f"{' '.join(arguments)}: {output}"] if code else []
    for name in NAMES:  # whoever writes next clears away what killed processes left
        code, output = in_process(["pack", "import", str(folder / "toys.sglora.zip"), "--name", name, "--force"])
        wrong += [output] if code else []
    for path in (home / "cache/adapters").rglob("*.draft"):  # nobody locks these, so they stay for an hour
        os.utime(path, (0, 0))
    in_process(["generate", "a mug", "--pack", NAMES[0]])
    drafts = [*(home / "cache/packs").rglob("*.draft"), *(home / "cache/packs").rglob("*.old")]
    drafts += (home / "cache/adapters").rglob("*.draft")
    wrong += [f"left: {path}" for path in drafts]
    wrong += [f"not listed as a pack: {p}" for p in (home / "cache/packs").iterdir() if not (p / "pack.json").exists()]
    for path in sorted((home / "cache/adapters").glob("*.safetensors")):
        code, output = in_process(["inspect", str(path)])
        wrong += [f"{path}: {output}"] if code else []
    for path in [*folder.glob("*.jsonl"), *(home / "cache/rows").glob("*.jsonl")]:
        try:
            runs = read_rows(path)
        except SgloraError as error:
            wrong.append(str(error))
            continue
        places = [(r.method, r.task, r.sample, r.seed, r.sentence, r.direction, r.k) for r in runs[-1].rows]
        wrong += [f"{path}: a row is there twice"] if len(set(places)) < len(places) else []
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from stage import installed_tiny, toys_and_recipe

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        installed_tiny(folder / "site")
        toys_and_recipe(folder, QUICK)
        os.environ |= {"SGLORA_HOME": str(folder / "home"), "SGLORA_BACKBONE": "tiny", "OMP_NUM_THREADS": "1"}
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
        prepare(folder)
        context = multiprocessing.get_context("spawn")
        results, until = context.Queue(), time.time() + options.seconds
        arguments = [(n, options.seed, folder, until, results) for n in range(options.processes)]
        processes = [context.Process(target=worker, args=own) for own in arguments]
        for process in processes:
            process.start()
        actions, living, slowest = [], len(processes), 0.0
        while living:
            if (one := results.get(timeout=options.seconds + 300)) is None:  # Empty: somebody waits for ever
                living -= 1
                continue
            actions.append(one)
            slowest = max(slowest, one[4])
        for process in processes:
            process.join(60)
        wrong = [f"{kind}: exit code {code}: {output}" for kind, code, _, output, _ in actions if output]
        _print(actions, slowest)
        wrong += [f"a process ended with {p.exitcode}" for p in processes if p.exitcode]
        wrong += left(folder)
    print(f"{len(wrong)} broken invariants")
    sys.exit("\n".join(wrong[:20]) if wrong else 0)


def _print(actions: list[tuple[str, int, str, str, float]], slowest: float) -> None:
    codes = sorted({code for _, code, *_ in actions})
    print(f"{len(actions)} actions, the slowest took {slowest:.1f} s")
    print("| action | all | " + " | ".join("killed" if code == -9 else f"exit {code}" for code in codes) + " |")
    print("|---" * (len(codes) + 2) + "|")
    for kind in sorted({kind for kind, *_ in actions}):
        count = Counter(code for one, code, *_ in actions if one == kind)
        print(f"| {kind} | {sum(count.values())} | " + " | ".join(str(count[code]) for code in codes) + " |")
    messages = Counter(_kind_of(message) for *_, message, _, _ in actions if message)
    print(json.dumps(dict(messages.most_common(12)), indent=1))


def _kind_of(message: str) -> str:
    """An error's message without its names and numbers."""
    import re

    return re.sub(r"/[^ ,;:]+", "PATH", re.sub(r"'[^']*'", "X", message))


if __name__ == "__main__":
    main()
