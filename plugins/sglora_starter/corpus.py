"""The training data of the starter backbone: captioned photos of Flickr8k, COCO and birds, and photos with class names.

No photo of an expert, training or unseen task is included, even under another name (see `without_tasks`). Bird species
that make poor tasks, because their captions repeat or their photos hardly differ, are included (see `MOVED`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.api import BadFile, file_hash

if TYPE_CHECKING:
    from PIL.Image import Image

MOVED = (
    # experts and training tasks of splits.json that closely resemble other species
    "Lazuli Bunting",
    "Olive sided Flycatcher",
    "Red faced Cormorant",
    "Acadian Flycatcher",
    "Brewer Blackbird",
    "Bronzed Cowbird",
    "Yellow bellied Flycatcher",
)
SOURCE_WEIGHTS = {"birds": 1.0, "flowers": 1.0, "caltech": 0.4, "imagenet": 1.2, "coco": 2.5}
"""Weights for drawing photos of sources other than Flickr8k."""
BIRD_CAPTIONS = 5
TEMPLATES = ("a photo of a {}", "a {}", "a picture of a {}")


@dataclass
class Photo:
    """One photo of the corpus. `key` is its path inside `data`.

    `captions` describe this photo. `names` are true of every photo of its `group`, so photos of the
    same group are never negatives of each other for them. A group contains similar photos: a
    species, or a topic of Flickr8k. Photos of the same `session` were taken together.
    """

    data: Path
    key: str
    source: str
    group: str
    captions: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    session: int = -1

    @property
    def path(self) -> Path:
        return self.data / self.key


def backbone_birds(data: Path) -> frozenset[str]:
    """Return the bird species reserved for the backbone."""
    birds = json.loads((data / "splits.json").read_text(encoding="utf-8"))["birds"]
    assert not set(MOVED) & set(birds["unseen"]), "an unseen task must never reach the backbone"
    return frozenset(birds["backbone"]) | frozenset(MOVED)


def read(data: Path) -> list[Photo]:
    """Return all photos that the backbone may see, in a fixed order. Raises BadFile if a part is missing."""
    try:
        photos = [*flickr8k(data, "train"), *_coco(data), *_birds(data), *_named(data)]
        return without_tasks(data, photos)
    except (OSError, KeyError, ValueError) as error:
        raise BadFile(f"cannot read the training data in {data}: {error}", "see its README.md") from error


def without_tasks(data: Path, photos: Sequence[Photo]) -> list[Photo]:
    """Exclude photos of tasks and of Flickr8k's test split, compared by file hash and by COCO number."""
    own = {photo.key for photo in photos}
    tasks = [key for key in every_task_photo(data) if key not in own]
    hashes = {file_hash(data / key) for key in tasks}
    numbers = {_coco_number(key) for key in tasks if key.startswith("coco/")}
    return [
        photo
        for photo in photos
        if file_hash(photo.path) not in hashes and not (photo.source == "coco" and _coco_number(photo.key) in numbers)
    ]


def every_task_photo(data: Path) -> list[str]:
    """Return paths inside `data` of all photos of tasks, of Flickr8k's test split, and of birds."""
    coco = json.loads((data / "coco/dataset_coco.json").read_text(encoding="utf-8"))["images"]
    return [
        *(f"coco/{row['filepath']}/{row['filename']}" for row in coco),
        *(f"{name}/{row['image']}" for name in ("birds", "flowers", "oxford-iiit-pet") for row in _rows(data, name)),
        *(photo.key for photo in flickr8k(data, "test")),
    ]


def _coco_number(key: str) -> int:
    """Return COCO's number of a photo, the same in every edition: 49 for `COCO_train2014_000000000049.jpg`."""
    return int(Path(key).stem.rpartition("_")[2])


def _rows(data: Path, folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()]


def flickr8k(data: Path, split: str) -> list[Photo]:
    """Return the photos of an official split, `train` or `test`, with five captions each."""
    return [
        Photo(data, f"flickr8k/{row['image']}", "flickr8k", row["task"], row["captions"], session=row["session"])
        for row in _rows(data, "flickr8k")
        if row["split"] == split
    ]


def hold_out(photos: Sequence[Photo], count: int) -> list[int]:
    """Return rows of about `count` photos of Flickr8k, as complete sessions, so that no near-duplicates remain."""
    sessions: dict[int, list[int]] = {}
    for row, photo in enumerate(photos):
        if photo.source == "flickr8k":
            sessions.setdefault(photo.session, []).append(row)
    held: list[int] = []
    for session in random.Random(7).sample(sorted(sessions), len(sessions)):
        if len(held) >= count:
            break
        held += sessions[session]
    return sorted(held)


def _birds(data: Path) -> list[Photo]:
    allowed = backbone_birds(data)
    return [
        Photo(
            data, f"birds/{row['image']}", "birds", row["task"], row["captions"][:BIRD_CAPTIONS], _named_so(row["task"])
        )
        for row in _rows(data, "birds")
        if row["task"] in allowed
    ]


def _coco(data: Path) -> list[Photo]:
    photos: dict[str, Photo] = {}
    for folder in ("coco_mini", "coco_tiny"):
        for split in ("train2017", "val2017"):
            content = json.loads((data / folder / f"annotations/captions_{split}.json").read_text(encoding="utf-8"))
            captions: dict[int, list[str]] = {}
            for row in content["annotations"]:
                captions.setdefault(row["image_id"], []).append(row["caption"].strip())
            for row in content["images"]:
                name = row["file_name"]  # some photos are in both folders
                photos[name] = Photo(data, f"{folder}/{split}/{name}", "coco", name, captions[row["id"]])
    return list(photos.values())


def _named(data: Path) -> list[Photo]:
    rows = [json.loads(line) for line in (data / "named/names.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        Photo(data, f"named/{row['image']}", row["source"], row["name"], names=_named_so(row["name"])) for row in rows
    ]


def _named_so(name: str) -> list[str]:
    return [template.format(name.lower()) for template in TEMPLATES]


def view(photo: Photo, image: Image, number: int) -> Image:
    """Return a view of a photo. View 0 is the complete photo, the others are reproducible random crops."""
    if number == 0:
        return image
    rng = random.Random(f"{photo.key}{number}")
    width, height = image.size
    side, stretch = rng.uniform(0.55, 0.95) ** 0.5, rng.uniform(0.85, 1.18) ** 0.5
    w, h = min(width, int(width * side * stretch)), min(height, int(height * side / stretch))
    x, y = rng.randint(0, width - w), rng.randint(0, height - h)
    return image.crop((x, y, x + w, y + h))


def add_colours(photo: Photo, image: Image) -> None:
    """Add captions with colours to a photo that only has a name."""
    from .colours import phrases, shares

    if not photo.captions:
        photo.captions = phrases(photo.group.lower(), *shares(image))


def texts_of(photos: Sequence[Photo]) -> list[str]:
    """Return all different texts of the corpus, sorted."""
    return sorted({text for photo in photos for text in (*photo.captions, *photo.names)})
