"""A folder with everything that example commands name, and the way they are run there."""

from __future__ import annotations

import shlex
import shutil
import tomllib
from pathlib import Path

from console import run
from speckles import speckles, write_rows
from trees import karpathy_files

ROOT = Path(__file__).parents[2]


def write_demo(folder: Path) -> None:
    """Write what examples name: `DIR`, `photos`, `my-photos`, `sentences.txt`, two packs, two adapters."""
    _write_data(folder / "DIR")
    shutil.copytree(folder / "DIR" / "flowers", folder / "photos")
    for seed in range(80):  # of eight tasks, a folder each, without captions
        place = folder / "my-photos" / f"task {seed % 8}"
        place.mkdir(parents=True, exist_ok=True)
        speckles(1000 + seed).save(place / f"{seed}.jpg")
    (folder / "sentences.txt").write_text("a photo of a pug\na photo of a rose\n")
    for command in (
        'sglora generate "a photo of a teapot" --generator cvae -o teapot-peft/',
        'sglora generate "a photo of a persian" -o persian.safetensors',
        "sglora pack export starter -o both.sglora.zip",
        "sglora pack import both.sglora.zip --name birds",
        "sglora pack import both.sglora.zip --name flowers",
    ):
        code, output = run(command)
        assert code == 0, output


def run_alone(command: str, more: str = "") -> tuple[int, str]:
    """Run a command with `more` options, as if no earlier command had written the file that it writes."""
    words = shlex.split(command)
    if "-o" in words and (out := Path(words[words.index("-o") + 1])).exists():
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    return run(f"{command} {more}")


def _write_data(data: Path) -> None:
    """All tasks of the starter recipe, three small pictures each; pets in torchvision's layout besides its own."""
    recipe = tomllib.loads((ROOT / "packs/starter.toml").read_text(encoding="utf-8"))
    seed = 0
    for source in recipe["source"]:
        rows, root = [], data / source["path"]
        photos = "train2014" if source["dataset"] == "coco" else "images"
        (root / photos).mkdir(parents=True)
        for task in [*source["expert"], *source["training"], *source["unseen"]]:
            for n in range(3):
                seed += 1
                image = f"{photos}/{task.replace(' ', '_')}_{n}.jpg"
                speckles(seed).save(root / image)
                texts = [f"the {task} number {n}", f"{task} {n} of three"]
                rows.append({"image": image, "task": task, "split": "test" if n == 2 else "train", "captions": texts})
        karpathy_files(root, rows) if source["dataset"] == "coco" else write_rows(root, rows)
    pets = data / "oxford-iiit-pet"  # the recipe's last source
    (pets / "annotations").mkdir()
    tasks = [*source["expert"], *source["training"], *source["unseen"]]
    for name, numbers in (("trainval", (0, 1)), ("test", (2,))):
        lines = [f"{t.replace(' ', '_')}_{n} {i} 1 {i}\n" for i, t in enumerate(tasks, 1) for n in numbers]
        (pets / "annotations" / f"{name}.txt").write_text("".join(lines))
