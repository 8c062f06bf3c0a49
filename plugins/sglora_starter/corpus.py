"""What the starter backbone is trained on: captioned bird photos, COCO, and photos with a class name.

Nothing of an expert, training or unseen task is read. Whole bird species that make poor
tasks (their captions repeat, their photos hardly differ) are on this side: see `MOVED`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.api import BadFile

if TYPE_CHECKING:
    from PIL.Image import Image

MOVED = (
    # experts and training tasks of splits.json with a near twin among the other species
    "Lazuli Bunting",
    "Olive sided Flycatcher",
    "Red faced Cormorant",
    "Acadian Flycatcher",
    "Brewer Blackbird",
    "Bronzed Cowbird",
    "Yellow bellied Flycatcher",
)
VIEWS = 3
HELD_OUT_EVERY = 12
TEMPLATES = ("a photo of a {}", "a {}", "a picture of a {}")


@dataclass
class Photo:
    """One photo of the corpus: `key` is its path inside `data`.

    `captions` describe this photo; `names` are true of every photo of its `group`, so that
    photos of one group are never each other's negatives for them.
    """

    data: Path
    key: str
    source: str
    group: str
    captions: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    held_out: bool = False

    @property
    def path(self) -> Path:
        return self.data / self.key


def backbone_birds(data: Path) -> frozenset[str]:
    """The bird species that belong to the backbone."""
    birds = json.loads((data / "splits.json").read_text())["birds"]
    assert not set(MOVED) & set(birds["unseen"]), "an unseen task must never reach the backbone"
    return frozenset(birds["backbone"]) | frozenset(MOVED)


def read(data: Path) -> list[Photo]:
    """All photos the backbone may see, in a fixed order. Raises BadFile when a part is missing."""
    try:
        photos = [*_birds(data), *_coco(data), *_named(data)]
    except (OSError, KeyError, ValueError) as error:
        raise BadFile(f"cannot read the training data in {data}: {error}", "see its README.md") from error
    random.Random(0).shuffle(photos)
    for number, photo in enumerate(photos):
        photo.held_out = number % HELD_OUT_EVERY == 0
    return photos


def _birds(data: Path) -> list[Photo]:
    allowed = backbone_birds(data)
    rows = [json.loads(line) for line in (data / "birds/captions.jsonl").read_text().splitlines()]
    return [
        Photo(data, f"birds/{row['image']}", "birds", row["task"], row["captions"], _named_so(row["task"]))
        for row in rows
        if row["task"] in allowed
    ]


def _coco(data: Path) -> list[Photo]:
    photos: dict[str, Photo] = {}
    for folder in ("coco_mini", "coco_tiny"):
        for split in ("train2017", "val2017"):
            content = json.loads((data / folder / f"annotations/captions_{split}.json").read_text())
            captions: dict[int, list[str]] = {}
            for row in content["annotations"]:
                captions.setdefault(row["image_id"], []).append(row["caption"].strip())
            for row in content["images"]:
                name = row["file_name"]  # some photos are in both folders
                photos[name] = Photo(data, f"{folder}/{split}/{name}", "coco", name, captions[row["id"]])
    return list(photos.values())


def _named(data: Path) -> list[Photo]:
    rows = [json.loads(line) for line in (data / "named/names.jsonl").read_text().splitlines()]
    return [
        Photo(data, f"named/{row['image']}", row["source"], row["name"], names=_named_so(row["name"])) for row in rows
    ]


def _named_so(name: str) -> list[str]:
    return [template.format(name.lower()) for template in TEMPLATES]


def view(photo: Photo, image: Image, number: int) -> Image:
    """View 0 is the whole photo; the others are random crops, the same ones every time."""
    if number == 0:
        return image
    rng = random.Random(f"{photo.key}{number}")
    width, height = image.size
    side, stretch = rng.uniform(0.55, 0.95) ** 0.5, rng.uniform(0.85, 1.18) ** 0.5
    w, h = min(width, int(width * side * stretch)), min(height, int(height * side / stretch))
    x, y = rng.randint(0, width - w), rng.randint(0, height - h)
    return image.crop((x, y, x + w, y + h))


def add_colours(photo: Photo, image: Image) -> None:
    """Give a photo that has only a name captions that say its colours."""
    from .colours import phrases, shares

    if not photo.captions:
        photo.captions = phrases(photo.group.lower(), *shares(image))


def texts_of(photos: Sequence[Photo]) -> list[str]:
    """Every different text of the corpus, sorted."""
    return sorted({text for photo in photos for text in (*photo.captions, *photo.names)})
