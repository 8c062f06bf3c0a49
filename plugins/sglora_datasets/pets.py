"""Oxford-IIIT Pet in torchvision's layout: images/, annotations/{trainval,test}.txt, and captions.jsonl beside them.

A task is a breed, named as its files are, in lower case: `american bulldog`. `trainval` is for training. The
lists decide breed and side; of captions.jsonl only `image` ("images/pug_16.jpg") and `captions` are read. A listed
image without captions is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.api import BadFile, Listed, Task, Unavailable, text_lines

from .download import fetched
from .tasks import Row, captioned, gathered, layout_captions, listed, not_captioned

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
        rows = list(_rows(root))
        captions = layout_captions(root, "images/pug_16.jpg")
        return gathered(root, captioned(root, rows, dict(captions)))

    def images(self, root: Path) -> Sequence[Listed]:
        """Every listed image, in the lists' order. Raises as `tasks` does, but needs no captions."""
        return listed(root, _rows(root))

    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        """Listed images without captions, and images in `images` that no list names."""
        return not_captioned(root, _rows(root), "images")

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Download what is missing (800 MB), checked; captions are not part of it."""
        return fetched("OxfordIIITPet", data, "oxford-iiit-pet", note, ("images", "annotations"))


def _rows(root: Path) -> Iterator[Row]:
    """Every listed image, once it is clear that both lists are there."""
    paths = {root / "annotations" / f"{name}.txt": split for name, split in LISTS.items()}
    for path in paths:
        if not path.is_file():
            raise Unavailable(f"{path} does not exist", "`sglora data fetch pets` downloads it into the data folder")
    breeds: dict[str, tuple[str, str]] = {}
    for path, split in paths.items():
        for number, line in text_lines(path):
            where = f"{path}, line {number}"
            if line.startswith("#"):
                continue
            image, label = _entry(line, where)
            breed = image.rpartition("/")[2].rpartition("_")[0].replace("_", " ").lower()
            first, known = breeds.setdefault(label, (where, breed))
            if known != breed:
                raise BadFile(f"{where}: class {label} is {breed!r} here and {known!r} in {first}")
            yield Row(f"images/{image}.jpg", breed, split, where)


def _entry(line: str, where: str) -> tuple[str, str]:
    """Image name and class id of `Abyssinian_101 1 1 1`."""
    parts = line.split()
    if len(parts) != 4 or not all(part.isdecimal() for part in parts[1:]) or "_" not in parts[0]:
        raise BadFile(f"{where}: expected `Image_id class species breed`, got {line.strip()!r:.100}")
    if len(parts[1]) > 9 or not 1 <= int(parts[1]) <= BREEDS:
        raise BadFile(f"{where}: a class is 1 to {BREEDS}, got {parts[1]:.20}")
    return parts[0], parts[1]
