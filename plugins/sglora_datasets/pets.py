"""Oxford-IIIT Pet in torchvision's layout: images/, annotations/{trainval,test}.txt, and captions.jsonl beside them.

A task is a breed, named as its files are, in lower case: `american bulldog`. `trainval` is for training. The
lists decide breed and side; of captions.jsonl only `image` ("images/pug_16.jpg") and `captions` are read. A listed
image without captions is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.api import BadFile, Photo, Task, Unavailable

from .captions import Captioned, layout_captions, read_lines
from .fetching import fetched
from .gathering import existing, gathered

LISTS = {"trainval": "train", "test": "test"}
BREEDS = 37


@dataclass(frozen=True)
class Pets:
    name: str = "pets"
    summary: str = "Oxford-IIIT Pet as torchvision keeps it; a task a breed"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Every breed with a captioned image, sorted.

        Raises Unavailable without the lists or captions, BadFile with path and line for anything wrong in them.
        """
        for name in LISTS:
            if not (path := root / "annotations" / f"{name}.txt").is_file():
                raise Unavailable(
                    f"{path} does not exist", "`sglora data fetch pets` downloads it into the data folder"
                )
        captions = layout_captions(root, "images/pug_16.jpg")
        photos = list(_photos(root, dict(captions)))
        if not photos:
            raise BadFile(f"{root}: no listed image has a caption")
        return gathered(root, photos)

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Download what is missing (800 MB), checked; captions are not part of it."""
        return fetched("OxfordIIITPet", data, "oxford-iiit-pet", note)


def _photos(root: Path, captions: dict[str, Captioned]) -> Iterator[tuple[str, str, Photo]]:
    """(breed, split, photo) of every listed image with captions."""
    breeds: dict[str, tuple[str, str]] = {}
    for name, split in LISTS.items():
        path = root / "annotations" / f"{name}.txt"
        for number, line in read_lines(path):
            where = f"{path}, line {number}"
            if line.startswith("#"):
                continue
            image, label = _entry(line, where)
            breed = image.rpartition("_")[0].replace("_", " ").lower()
            first, known = breeds.setdefault(label, (where, breed))
            if known != breed:
                raise BadFile(f"{where}: class {label} is {breed!r} here and {known!r} in {first}")
            if (one := captions.pop(f"images/{image}.jpg", None)) is not None:
                yield breed, split, Photo(existing(root / "images", f"{image}.jpg", where), one.captions)
    for one in captions.values():
        raise BadFile(f"{one.where}: neither list names image {one.image!r}")


def _entry(line: str, where: str) -> tuple[str, str]:
    """Image name and class id of `Abyssinian_101 1 1 1`."""
    parts = line.split()
    if len(parts) != 4 or not all(part.isdecimal() for part in parts[1:]) or "_" not in parts[0]:
        raise BadFile(f"{where}: expected `Image_id class species breed`, got {line.strip()!r:.100}")
    if not 1 <= int(parts[1]) <= BREEDS:
        raise BadFile(f"{where}: a class is 1 to {BREEDS}, got {parts[1]}")
    return parts[0], parts[1]
