"""What the starter backbone is trained on: captioned photos of Flickr8k, COCO and birds, and photos with a class name.

No photo of an expert, training or unseen task is among them, also under no other name: see `without_tasks`. Whole
bird species that make poor tasks (their captions repeat, their photos hardly differ) are on this side: see `MOVED`.
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
    # experts and training tasks of splits.json with a near twin among the other species
    "Lazuli Bunting",
    "Olive sided Flycatcher",
    "Red faced Cormorant",
    "Acadian Flycatcher",
    "Brewer Blackbird",
    "Bronzed Cowbird",
    "Yellow bellied Flycatcher",
)
SOURCE_WEIGHTS = {"birds": 1.0, "flowers": 1.0, "caltech": 0.4, "imagenet": 1.2, "coco": 2.5}
"""How often a photo of a source other than Flickr8k is drawn."""
BIRD_CAPTIONS = 5
TEMPLATES = ("a photo of a {}", "a {}", "a picture of a {}")


@dataclass
class Photo:
    """One photo of the corpus: `key` is its path inside `data`.

    `captions` describe this photo; `names` are true of every photo of its `group`, so that
    photos of one group are never each other's negatives for them. A group has like photos: a
    species, or a topic of Flickr8k. Photos of one `session` were taken together.
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
    """The bird species that belong to the backbone."""
    birds = json.loads((data / "splits.json").read_text(encoding="utf-8"))["birds"]
    assert not set(MOVED) & set(birds["unseen"]), "an unseen task must never reach the backbone"
    return frozenset(birds["backbone"]) | frozenset(MOVED)


def read(data: Path) -> list[Photo]:
    """All photos the backbone may see, in a fixed order. Raises BadFile when a part is missing."""
    try:
        photos = [*flickr8k(data, "train"), *_coco(data), *_birds(data), *_named(data)]
        return without_tasks(data, photos)
    except (OSError, KeyError, ValueError) as error:
        raise BadFile(f"cannot read the training data in {data}: {error}", "see its README.md") from error


def without_tasks(data: Path, photos: Sequence[Photo]) -> list[Photo]:
    """The photos that are of no task and not of Flickr8k's test: neither the same file nor the same number in COCO."""
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
    """Paths inside `data` of all photos of tasks, of Flickr8k's test, and of every bird."""
    coco = json.loads((data / "coco/dataset_coco.json").read_text(encoding="utf-8"))["images"]
    return [
        *(f"coco/{row['filepath']}/{row['filename']}" for row in coco),
        *(f"{name}/{row['image']}" for name in ("birds", "flowers", "oxford-iiit-pet") for row in _rows(data, name)),
        *(photo.key for photo in flickr8k(data, "test")),
    ]


def _coco_number(key: str) -> int:
    """COCO's own number of a photo, the same in every edition: `COCO_train2014_000000000049.jpg` is 49."""
    return int(Path(key).stem.rpartition("_")[2])


def _rows(data: Path, folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()]


def flickr8k(data: Path, split: str) -> list[Photo]:
    """The photos of one official split, `train` or `test`, with five captions each."""
    return [
        Photo(data, f"flickr8k/{row['image']}", "flickr8k", row["task"], row["captions"], session=row["session"])
        for row in _rows(data, "flickr8k")
        if row["split"] == split
    ]


def hold_out(photos: Sequence[Photo], count: int) -> list[int]:
    """Rows of about so many photos of Flickr8k: whole sessions, so that none has a twin among the others."""
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
