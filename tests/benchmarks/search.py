"""What a search among photos costs against a cold start: `python tests/benchmarks/search.py [--photos DIR]`.

Processor time (user and system) in new processes, one thread, as multiples of `import torch`. Beside it is `generate`
with an empty user cache (a cold start) and with a filled one. "search, first" embeds every photo. The other searches
find embeddings in the cache: the same search again, another sentence, and another adapter of the default generator.
All commands run in turn, and the median of each turn's ratio counts.
Without --photos, so many small pictures of noise are drawn as --count says.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from commands import TORCH, measured

SGLORA = str(Path(sys.executable).with_name("sglora"))


def draw(folder: Path, count: int) -> Path:
    """Photos that were written an hour ago: what is known of a file that has just changed is not relied on."""
    import numpy
    from PIL import Image

    folder.mkdir()
    rng = numpy.random.default_rng(0)
    then = time.time() - 3600
    for n in range(count):
        path = folder / f"{n:06}.jpg"
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=numpy.uint8)).resize((224, 224)).save(path)
        os.utime(path, (then, then))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="a folder, or a list, of photos")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        photos = str((options.photos or draw(folder / "photos", options.count)).absolute())
        os.chdir(folder)
        home = folder / "home"
        search = [SGLORA, "search", photos, "--adapter", "pug.safetensors"]
        generate = [SGLORA, "generate", "a photo of a pug", "-o", "pug.safetensors", "--force"]
        measured([sys.executable, "-c", "import torch"], home)  # compiles bytecode
        measured(generate, home)
        first, _ = measured([*search, "a pug on a sofa"], home)
        turns = []
        for n in range(options.rounds):
            other = [SGLORA, "generate", f"a photo of {n} dogs", "-o", "other.safetensors", "--force"]
            measured(other, home)
            turns.append(
                {
                    TORCH: measured([sys.executable, "-c", "import torch"], home)[0],
                    "generate, empty cache": measured(generate, folder / f"fresh-{n}")[0],
                    "generate": measured(generate, home)[0],
                    "search again": measured([*search, "a pug on a sofa"], home)[0],
                    "search, another sentence": measured([*search, f"{n} pugs"], home)[0],
                    "search, another adapter": measured([*search[:-1], "other.safetensors", "a pug"], home)[0],
                }
            )
    base = statistics.median(one[TORCH] for one in turns)
    print(f"{TORCH}: {base:.2f} s; times are multiples of it\n\n| command | |\n|---|---:|")
    print(f"| search, first | {first / base:.0f} |")
    for row in [row for row in turns[0] if row != TORCH]:
        print(f"| {row} | {statistics.median(one[row] / one[TORCH] for one in turns):.2f} |")


if __name__ == "__main__":
    main()
