"""Classification on the starter backbone: a miniature in CIFAR-100's layout, made of real photos, and two recipes.

    python -m tests.benchmarks.small_classes DATA OUT
    sglora pack build OUT/sentence.toml --data OUT && sglora bench --pack sentence --baselines all

DATA is the development data; of its folder `named`, 18 superclasses of mostly five classes with 24 photos each are cut
square and shrunk to 32 x 32 pixels: 14 a class to train, 10 to test. Superclasses are put together here by meaning. The
two recipes differ in the description: `template` says "a photo of a NAME", `sentence` also names the classes. Roles are
dealt in alphabetical order, as in packs/cifar100.toml.
The starter backbone was trained on these photos by name (at 224 pixels): what it scores here is no zero-shot figure.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent.parent))
from trees import cifar_tree

TRAIN, TEST = 14, 10
CLASSES = {
    "animals with shells": "crab, crayfish, lobster, nautilus, trilobite",
    "arthropods": "ant, butterfly, dragonfly, mayfly, tick",
    "birds": "emu, flamingo, ibis, pigeon, rooster",
    "carnivores": "cougar body, dalmatian, leopards, panda, wild cat",
    "electrical devices": "camera, cellphone, gramophone, headphone, laptop",
    "food and drink": "barrel, cup, ewer, pizza, strawberry",
    "furniture": "ceiling fan, chair, chandelier, lamp, windsor chair",
    "garden flowers": "carnation, english marigold, magnolia, purple coneflower, wild pansy",
    "landmarks": "buddha, minaret, pagoda, pyramid, stop sign",
    "large mammals": "elephant, gerenuk, llama, okapi, rhino",
    "lilies": "canna lily, giant white arum lily, hippeastrum, peruvian lily, toad lily",
    "meadow flowers": "artichoke, buttercup, globe thistle, oxeye daisy, spear thistle",
    "musical instruments": "accordion, euphonium, grand piano, mandolin, saxophone",
    "reptiles and dinosaurs": "brontosaurus, crocodile, crocodile head, hawksbill, stegosaurus",
    "sea animals": "bass, dolphin, octopus, sea horse, starfish",
    "small mammals": "beaver, hedgehog, kangaroo, platypus",
    "tools": "binocular, revolver, scissors, stapler, wrench",
    "vehicles": "airplanes, car side, helicopter, ketch, motorbikes",
}
DESCRIPTIONS = {
    "template": "a photo of a {name}",
    "sentence": "This is a classification task for recognizing {name}, which includes {classes}",
}
RECIPE = """
summary = "small classes"
backbone = "starter"
[train]
warmup_epochs = 40
epochs = 30
states = 20
joint_learning_rate = 3e-3
tasks_at_once = 4
[generators.cvae]
hidden = 32
latent = 8
epochs = 20
[[source]]
name = "small"
dataset = "cifar100"
path = "cifar-100-python"
"""


def main(data: Path, out: Path) -> None:
    photos = defaultdict(list)
    for line in (data / "named/names.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["source"] != "imagenet":  # one photo a class, of another kind
            photos[row["name"]].append(data / "named" / row["image"])
    classes = {task: names.split(", ") for task, names in CLASSES.items()}
    images = {
        split: [(name, small(path)) for names in classes.values() for name in names for path in photos[name][part]]
        for split, part in (("train", slice(TRAIN)), ("test", slice(TRAIN, TRAIN + TEST)))
    }
    cifar_tree(out / "cifar-100-python", images, classes)
    dealt = {n: ("expert", "unseen", "training")[i % 3] if i < 15 else "expert" for i, n in enumerate(sorted(classes))}
    for name, description in DESCRIPTIONS.items():
        roles = {role: [n for n, given in dealt.items() if given == role] for role in ("expert", "training", "unseen")}
        lines = "".join(
            f"{key} = {json.dumps(value)}\n" for key, value in {"description": description, **roles}.items()
        )
        (out / f"{name}.toml").write_text(RECIPE + lines)
    print({split: len(some) for split, some in images.items()}, "photos;", out)


def small(path: Path) -> Image.Image:
    return ImageOps.fit(Image.open(path).convert("RGB"), (32, 32), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
