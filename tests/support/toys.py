"""A toy data set: two-coloured pictures whose captions name the colours, and a recipe for it."""

from __future__ import annotations

import json
from pathlib import Path

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (30, 40, 220),
    "white": (240, 240, 240),
    "black": (10, 10, 10),
}
EXPERTS, TRAINING, UNSEEN = ("ball", "box", "cup", "hat"), ("jar", "kite", "lamp"), ("mug", "nest")


def write_toys(folder: Path) -> Path:
    from PIL import Image

    root = folder / "data" / "toys"
    (root / "images").mkdir(parents=True)
    rows = []
    pairs = [(a, b) for a in COLOURS for b in COLOURS if a != b]
    for t, task in enumerate((*EXPERTS, *TRAINING, *UNSEEN)):
        for n in range(8):
            top, bottom = pairs[(5 * t + 3 * n) % len(pairs)]
            image = Image.new("RGB", (16, 16), COLOURS[top])
            image.paste(COLOURS[bottom], (0, 8, 16, 16))
            image.putpixel((0, 0), (t, n, 0))
            name = f"images/{task}_{n}.png"
            image.save(root / name)
            captions = [f"a {top} {task} on a {bottom} floor", f"{top} {task} above {bottom}"]
            rows.append({"image": name, "task": task, "split": "train" if n < 5 else "test", "captions": captions})
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "data"


RECIPE = f"""
summary = "toys"
backbone = "tiny"
[train]
epochs = 6
states = 4
tasks_at_once = 3
learning_rate = 0.02
[prior]
k = 2
[generators.cvae]
hidden = 8
latent = 3
epochs = 200
learning_rate = 0.01
[[source]]
name = "toys"
expert = {json.dumps(EXPERTS)}
training = {json.dumps(TRAINING)}
unseen = {json.dumps(UNSEEN)}
"""
