"""Kill -9 every writing command at random moments: `python tests/robustness/kills.py --kills 200`.

Each command runs once undisturbed, which says how long it takes and what it leaves. Then it is killed again and again
at moments drawn evenly over that time, each try resuming from what the one before left, until it comes to its end; then
it starts over with an empty result, so that kills reach all of its phases. After each kill: every pack that is listed
verifies, every adapter that has its name is one of those of the undisturbed run, only the last line of a rows file is
torn, and of a build no finished step (a file of the cache) is changed or made again. At its end: the same bytes as
undisturbed, and no draft. The tests' tiny backbone and toys; processes fork off one that has imported torch already, so
that time goes into writing and not into starting Python. `--commands "pack add,generate"` chooses some of them.

With `--data DIR` a recipe is built from real photos instead: one build, killed at `--kills` moments drawn evenly over
the time of an undisturbed one, counted over its restarts.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "support"), str(TESTS / "thirdparty")]
from drafts import age_drafts  # noqa: E402 - the folder has just been added

SHORT = {"epochs = 6": "epochs = 4\njoint_epochs = 3\nwarmup_epochs = 2", "epochs = 200": "epochs = 10"}
"""Changes to the toys' recipe: all kinds of steps, each of them quick."""
SENTENCES = [
    f"a photo of a {colour} {thing}" for colour in ("red", "green", "blue") for thing in ("mug", "nest", "jar")
]


def hashes(folder: Path, drafts: bool = False) -> dict[str, str]:
    """Files by name, without locks and, unless `drafts`, without what begins with a dot.

    Rows of `measured/made` are left out, because their names depend on the times of files, which copies do not share.
    """
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if "measured/made/" in name:
            continue
        hidden = any(part.startswith(".") for part in name.split("/"))
        try:
            if path.is_file() and path.suffix != ".lock" and (drafts or not hidden):
                digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            continue
    return digests


@dataclass
class Scene:
    """Folders of one command's runs, made of what `prepare` left."""

    root: Path
    arguments: Callable[[Path], Sequence[str]]
    start: Path | None = None
    """A folder that every first try begins with."""
    stdin: str = ""
    checkpoint_seconds: float = 0.2
    """Time between checkpoints: a tiny training would never write one."""
    one_build: bool = False
    """A long build, which is killed in one go: moments are counted over its restarts."""

    def fresh(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        if self.start:
            shutil.copytree(self.start, self.root)
        self.root.mkdir(exist_ok=True)

    def launch(self) -> int:
        """A forked process that runs the command; its id."""
        child = os.fork()
        if child:
            return child
        try:
            os.environ["SGLORA_HOME"] = str(self.root / "home")
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(os.open(self.root.parent / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            if self.stdin:
                os.dup2(os.open(self.stdin, os.O_RDONLY), 0)
            from sglora_cli.cli.main import main
            from sglora_cli.files import tensors

            tensors.SECONDS = self.checkpoint_seconds
            main([str(a) for a in self.arguments(self.root)])
            os._exit(0)
        except SystemExit as error:
            os._exit(int(error.code or 0))
        finally:
            os._exit(1)

    def finish(self, expected: dict[str, str] | None = None) -> float:
        """Run to the end; how long it took."""
        began = time.monotonic()
        _, status = os.waitpid(self.launch(), 0)
        self.check(status, expected)
        return time.monotonic() - began

    def check(self, status: int, expected: dict[str, str] | None) -> None:
        """A run may be refused (the expert is there) because the one before was killed after its work was done."""
        if status and hashes(self.root) != expected:
            sys.exit(f"failed: {(self.root.parent / 'stderr').read_text()[-2000:]}")


@dataclass
class Figures:
    """What came out for one command."""

    kills: int = 0
    runs: int = 0
    corrupt: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    differ: list[str] = field(default_factory=list)
    drafts: list[str] = field(default_factory=list)


def steps(root: Path) -> dict[str, tuple[int, int]]:
    """Finished steps of builds: name to inode and time of the last change; made again, both would be others."""
    finished = {}
    for folder in ("features", "work"):
        for path in (root / "home/cache" / folder).glob("[!.]*.safetensors"):
            state = path.stat()
            finished[path.name] = (state.st_ino, state.st_mtime_ns)
    return finished


def wrong(scene: Scene, expected: dict[str, str]) -> Iterator[str]:
    """What is visible after a kill and should not be: damaged packs, files that the undisturbed run did not leave."""
    from sglora_cli.errors import SgloraError
    from sglora_cli.pack.pack import Pack

    for manifest in (scene.root / "home/cache/packs").glob("[!.]*/pack.json"):
        try:
            yield from (f"{manifest.parent.name}: {line}" for line in Pack(manifest.parent).verify())
        except SgloraError as error:
            yield f"{manifest.parent.name}: {error}"
    before = hashes(scene.start) if scene.start else {}
    for name, value in hashes(scene.root).items():
        path = scene.root / name
        if name.endswith((".part", ".checkpoint")) or {"packs", "work"} & {*Path(name).parts}:
            continue  # unfinished by their name; packs are verified above; a fit's file is gone at the end
        if path.suffix == ".jsonl":
            lines = path.read_bytes().splitlines(keepends=True)
            if not all(line.endswith(b"\n") for line in lines[:-1]):
                yield f"{name}: a torn line that is not the last"
        elif value not in (expected.get(name), before.get(name)):
            yield f"{name} is not what the undisturbed run left"


def waits(scene: Scene, whole: float, kills: int, rng: random.Random) -> list[float]:
    """How long each try runs until it is killed; the try after the last one runs to its end."""
    if scene.one_build:
        moments = sorted(rng.uniform(0, whole) for _ in range(kills))
        return [max(2.0, moment - before) for before, moment in zip([0.0, *moments], moments, strict=False)]
    return [rng.uniform(0, whole * 1.05) for _ in range(rng.choice((1, 2, 4, 8)))]


def waited(child: int, seconds: float) -> tuple[int, int]:
    """(process, status) once it has ended; (0, 0) if it still runs after so many seconds."""
    end = time.monotonic() + seconds
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(min(0.2, max(0.0, end - time.monotonic())))
    return ended


def kill_often(name: str, scene: Scene, kills: int, rng: random.Random) -> Figures:
    """Kill a command so many times."""
    scene.fresh()
    whole = scene.finish()
    print(f"{name}: {whole:.1f} s undisturbed", file=sys.stderr, flush=True)
    expected = hashes(scene.root)
    figures = Figures()
    while figures.kills < kills:
        scene.fresh()
        figures.runs += 1
        if figures.runs % 4 == 0:  # a shared machine is faster or slower by now
            whole = scene.finish(expected)
            scene.fresh()
        for wait in waits(scene, whole, kills, rng):
            child, begin = scene.launch(), steps(scene.root)
            pid, status = waited(child, wait)
            if pid:
                scene.check(status, expected)
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            figures.kills += 1
            age_drafts(scene.root)
            for text in wrong(scene, expected):
                figures.corrupt.append(text)
                print(f"{name}: {text}", file=sys.stderr, flush=True)
            after = steps(scene.root)
            figures.lost += [step for step in begin if after.get(step, begin[step]) != begin[step]]
        kept = steps(scene.root)
        scene.finish(expected)
        after = steps(scene.root)
        figures.lost += [step for step in kept if after.get(step, kept[step]) != kept[step]]
        left = hashes(scene.root)
        figures.differ += [n for n in {*left, *expected} if left.get(n) != expected.get(n)]
        figures.drafts += [
            n for n in hashes(scene.root, drafts=True) if n.endswith((".draft", ".old")) or ".draft/" in n
        ]
        if scene.one_build:
            break
    return figures


def scenes(work: Path, toys: Path, recipe: Path) -> dict[str, Scene]:
    """The commands, and what each starts from: a home with a built pack, an archive, an adapter as a PEFT folder."""
    work.mkdir()
    base = Scene(work / "base", lambda root: ["pack", "build", str(recipe), "--data", str(toys)])
    base.fresh()
    base.finish()
    given = work / "given"
    for arguments in (
        ["pack", "export", "toys", "-o", str(given / "toys.sglora.zip")],
        ["generate", "a photo of a mug", "--pack", "toys", "--force", "-o", str(given / "mug.safetensors")],
        ["export", str(given / "mug.safetensors"), "-o", f"{given / 'mug-peft'}/"],
    ):
        Scene(base.root, lambda root, arguments=arguments: arguments).finish()  # type: ignore[misc]
    sentences = given / "sentences.txt"
    sentences.write_text("".join(f"{line}\n" for line in SENTENCES))
    peft = str(given / "mug-peft")
    add = ["--text", "a photo of a teapot", "--name", "toys/teapot"]
    batch = ["--pack", "toys", "--samples", "2", "--force"]
    one = ["generate", SENTENCES[0], "--pack", "toys", "--samples", "20", "--force"]
    bench = ["bench", "--pack", "toys", "--baselines", "all", "--resamples", "100"]
    return {
        "pack add": Scene(work / "add", lambda root: ["pack", "add", "toys", peft, *add], base.root),
        "pack import": Scene(
            work / "import", lambda root: ["pack", "import", str(given / "toys.sglora.zip"), "--force"], base.root
        ),
        "import": Scene(
            work / "adapter",
            lambda root: ["import", peft, "--backbone", "tiny", "-o", str(root / "x.safetensors"), "--force"],
        ),
        "generate": Scene(work / "generate", lambda root: one, base.root),
        "generate -": Scene(
            work / "batch",
            lambda root: ["generate", "-", "-o", str(root / "out/{n}.safetensors"), *batch],
            base.root,
            str(sentences),
        ),
        "bench --rows": Scene(work / "bench", lambda root: [*bench, "--rows", str(root / "rows.jsonl")], base.root),
        "pack build": Scene(work / "build", base.arguments),
    }


def real_build(work: Path, data: Path, recipe: str, limit: int) -> Scene:
    """A recipe's first tasks, from real photos."""
    work.mkdir()
    log = work / "log.jsonl"
    build = ["pack", "build", recipe, "--data", str(data.resolve()), "--limit", str(limit), "--log", str(log)]
    return Scene(
        work / "build", lambda root: [*build, "-o", str(root / "pack")], checkpoint_seconds=1.0, one_build=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="over all commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default="", help='some of the commands, as in "pack add,generate"')
    parser.add_argument("--data", type=Path, help="folder with data sets: kill a build of real photos instead")
    parser.add_argument("--recipe", default="starter", help="of the build from --data")
    parser.add_argument("--limit", type=int, default=3, help="tasks of each role and source of the build from --data")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.data:
            every = {"pack build": real_build(folder / "work", options.data, options.recipe, options.limit)}
        else:
            from stage import installed_tiny, toys_and_recipe

            installed_tiny(folder / "site")
            every = scenes(folder / "work", *toys_and_recipe(folder, SHORT))
        wanted = [one.strip() for one in options.commands.split(",")] if options.commands else list(every)
        if unknown := set(wanted) - set(every):
            parser.error(f"no command {sorted(unknown)[0]!r}; there are {', '.join(every)}")
        chosen = {name: every[name] for name in wanted}
        print("| command | kills | runs | corrupt | finished steps lost | other bytes at the end | drafts left |")
        print("|---|---|---|---|---|---|---|", flush=True)
        bad: list[str] = []
        for n, (command, scene) in enumerate(chosen.items()):
            share = options.kills // len(chosen) + (n < options.kills % len(chosen))
            f = kill_often(command, scene, share, rng)
            cells = [f.kills, f.runs, *map(len, (f.corrupt, f.lost, f.differ, f.drafts))]
            print(f"| {command} | {' | '.join(map(str, cells))} |", flush=True)
            bad += [f"{command}: {text}" for text in [*f.corrupt, *f.lost, *f.differ, *f.drafts]]
        if (log := folder / "work" / "log.jsonl").exists():
            resumed = sum('"resumed"' in line for line in log.read_text().splitlines())
            print(f"{resumed} trainings resumed from a checkpoint")
        sys.exit("\n".join(bad[:40]) if bad else 0)


if __name__ == "__main__":
    main()
