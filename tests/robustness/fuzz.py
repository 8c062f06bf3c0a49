"""Damage files and read them: `python tests/robustness/fuzz.py --inputs 100000 --out DIR`.

Every reader of fuzzing/readers.py gets its share of the inputs. An input must be read, or refused with a
SgloraError, within a second of processor time (a busy machine is no fault of a reader; 10 s by the clock are a hang).
All else is an offence and lies in DIR afterwards, with its traceback: another exception, a crash, a slow call, more
memory than the limit, which is that of the process's address space, so that a blow-up is a MemoryError.
Input n of a reader depends on the seed and n alone: `--reader NAME --first n --inputs 1` makes it again.

With --guided, atheris (`pip install atheris`) keeps inputs that reach new code, and damages those further.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
SLOW_SECONDS, HANG_SECONDS, DEAD_SECONDS = 1.0, 10.0, 60
MEMORY_BYTES = 2 << 30
"""Address space that a process may take beside what it has before the first input."""
LARGE_KILOBYTES = 500_000


class Hang(BaseException):
    """Not an Exception: no reader may swallow it."""


class Worker:
    """One reader in this process: counts, and what offended."""

    def __init__(self, name: str, out: Path, seed: int) -> None:
        from fuzzing.readers import READERS

        self.reader, self.out, self.seed = READERS[name], out, seed
        self.counts: Counter[str] = Counter()
        self.slowest, self.kinds = 0.0, set[str]()
        self.folder = Path(tempfile.mkdtemp(prefix="seed-", dir=os.environ["SGLORA_HOME"]))
        self.reader.seed(self.folder)
        self.read_good()
        self.good = {p: p.read_bytes() for p in sorted(self.folder.glob(self.reader.damaged)) if p.is_file()}
        assert self.good, f"{name}: nothing to damage"
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES, resource.RLIM_INFINITY))
        signal.signal(signal.SIGALRM, _hang)

    def read_good(self) -> None:
        """What nobody damaged is read: otherwise the reader is not tested."""
        self.reader.read(self.folder)

    def input(self, n: int) -> tuple[Path, bytes]:
        from fuzzing.containers import mutated

        rng = random.Random(f"{self.seed} {self.reader.name} {n}")
        path = rng.choice(list(self.good))
        return path, mutated(rng, self.good[path], path.name)

    def run(self, n: int, path: Path, data: bytes) -> None:
        """Read one input, and count what became of it."""
        path.write_bytes(data)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        faulthandler.dump_traceback_later(DEAD_SECONDS, exit=True)
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        start, offence = time.process_time(), ""
        try:
            offence = self._outcome()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            seconds = time.process_time() - start
            faulthandler.cancel_dump_traceback_later()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        self.slowest = max(self.slowest, seconds)
        if seconds > SLOW_SECONDS:
            self.counts["over 1 s"] += 1
            offence = offence or f"slow: {seconds:.1f} s"
        if grown > LARGE_KILOBYTES:
            self.counts["large"] += 1
            offence = offence or f"large: {grown // 1000} MB more"
        if offence:
            self._keep(n, path, data, offence)
        path.write_bytes(self.good[path])

    def _outcome(self) -> str:
        """Counts the call; returns what was wrong with it, "" if nothing."""
        from sglora_cli.errors import SgloraError

        try:
            self.reader.read(self.folder)
            self.counts["read"] += 1
        except SgloraError as error:
            self.counts[type(error).__name__] += 1
            return ""
        except Hang:
            self.counts["hang"] += 1
            return "hang\n" + traceback.format_exc()
        except Exception as error:
            self.counts["foreign"] += 1
            inner = error.__cause__ or error
            frames = [f for f in traceback.extract_tb(inner.__traceback__) if "/tests/" not in f.filename]
            where = next(
                (f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames) if "sglora" in f.filename), "?"
            )
            self.kinds.add(f"{type(inner).__name__} at {where}: {str(inner)[:100]!r}")
            return traceback.format_exc()
        return ""

    def _keep(self, n: int, path: Path, data: bytes, offence: str) -> None:
        folder = self.out / f"{self.reader.name.replace(' ', '-')}-{n}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(data)
        (folder / "offence").write_text(f"{path.relative_to(self.folder)}\n{offence}", errors="replace")

    def report(self, path: Path, n: int) -> None:
        path.write_text(json.dumps({"n": n, **self.facts()}))

    def facts(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "counts": self.counts,
            "slowest": round(self.slowest, 3),
            "before_mb": self.before // 1000,
            "peak_mb": peak // 1000,
            "kinds": sorted(self.kinds),
        }


def _hang(*_: object) -> None:
    raise Hang


def work(name: str, options: argparse.Namespace, first: int, count: int, home: Path) -> None:
    """What a child does: its inputs, and now and then a file that says how far it got."""
    os.environ["SGLORA_HOME"] = str(home)
    sys.stderr = (home / "stderr").open("w")
    worker = Worker(name, options.out, options.seed)
    for n in range(first, first + count):
        if n % 50 == 0:
            worker.report(home / "state", n)
        worker.run(n, *worker.input(n))
    worker.report(home / "state", first + count)


def guided(options: argparse.Namespace) -> None:
    """One reader, with atheris choosing what to damage further. It ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["sglora_cli", "sglora_datasets", "sglora_openclip", "tomli"]):
        worker = Worker(options.reader, options.out, options.seed)
    from fuzzing.containers import mutated

    paths = list(worker.good)
    corpus = worker.folder.with_name("corpus")
    corpus.mkdir()
    for n, path in enumerate(paths):  # the first byte says which file it is
        (corpus / str(n)).write_bytes(bytes([n % 256]) + worker.good[path])
    count = 0

    def damage(data: bytes, size: int, seed: int) -> bytes:
        at = data[0] % len(paths) if data else 0
        return (bytes([at]) + mutated(random.Random(seed), data[1:], paths[at].name))[:size]

    def one(data: bytes) -> None:
        nonlocal count
        path = paths[data[0] % len(paths)] if data else paths[0]
        worker.run(count, path, data[1:])
        count += 1
        if count == options.inputs:
            show(options.reader, worker.facts(), 0)
            os._exit(0)

    flags = ["-max_len=1000000", "-rss_limit_mb=0", "-timeout=60", f"-seed={options.seed + 1}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one, custom_mutator=damage)
    atheris.Fuzz()


def child(name: str, options: argparse.Namespace, first: int, count: int, home: Path) -> tuple[dict[str, Any], int]:
    """Facts of a child, and the number of inputs it got through; fewer than asked if it died."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    process = multiprocessing.get_context("fork").Process(target=work, args=(name, options, first, count, home))
    process.start()
    process.join()
    errors = (home / "stderr").read_text()
    if not (home / "state").exists():
        sys.exit(f"{name} does not read what nobody damaged:\n{errors}")
    state = json.loads((home / "state").read_text())
    if state["n"] == first + count:
        return state, count
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name.replace(' ', '-')}-died-{state['n']}.txt").write_text(errors[-9000:])
    return {**state, "died": True}, state["n"] - first + 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs in all; of the one reader with --reader")
    parser.add_argument("--reader", default="", help="this reader alone")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("offences"), help="folder for what offends")
    parser.add_argument("--guided", action="store_true", help="guided by coverage, with atheris")
    options = parser.parse_args()
    options.out = options.out.resolve()
    sys.path[:0] = [str(HERE), str(HERE / "support"), str(HERE.parent), str(HERE.parent / "plugins")]
    os.environ.update(SGLORA_OFFLINE="1", OMP_NUM_THREADS="1")
    warnings.simplefilter("ignore")
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # readers write, and sync what they write
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=place) as folder:
        os.environ["SGLORA_HOME"] = folder
        if options.guided:
            guided(options)
        from fuzzing.readers import READERS, built

        built()  # what all children need is loaded and made once
        chosen = {name: r.share for name, r in READERS.items() if options.reader in ("", name)}
        whole = sum(chosen.values())
        for name, share in chosen.items():
            left, first = max(1, round(options.inputs * share / whole)), options.first
            while left > 0:
                began = time.monotonic()
                facts, done = child(name, options, first, left, Path(folder) / "home")
                left, first = left - done, first + done
                show(name, facts, time.monotonic() - began)
                total.update(facts.get("counts", {}))
                total["died"] += facts.get("died", False)
    inputs = sum(n for kind, n in total.items() if kind not in ("over 1 s", "large", "died"))
    print(f"all: {inputs} inputs; " + ", ".join(f"{kind} {n}" for kind, n in sorted(total.items())))
    sys.exit(1 if any(total[kind] for kind in ("foreign", "hang", "over 1 s", "large", "died")) else 0)


def show(name: str, facts: dict[str, Any], seconds: float) -> None:
    counts = ", ".join(f"{kind} {n}" for kind, n in sorted(facts.get("counts", {}).items()))
    print(
        f"{name:<22} {counts}; slowest {facts.get('slowest', 0):.3f} s, "
        f"memory {facts.get('before_mb')} -> {facts.get('peak_mb')} MB, {seconds:.0f} s"
        + (" DIED" if facts.get("died") else ""),
        flush=True,
    )
    for kind in facts.get("kinds", ()):
        print(f"    {kind}", flush=True)


if __name__ == "__main__":
    main()
