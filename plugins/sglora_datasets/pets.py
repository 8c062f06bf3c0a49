"""Oxford-IIIT Pet in torchvision's layout: images/, annotations/{trainval,test}.txt, and captions.jsonl beside them.

A task is a breed, named like its files in lower case: `american bulldog`. `trainval` is for training. The lists
define breed and split. captions.jsonl only provides captions, using `image` ("images/pug_16.jpg") and `captions`.
Listed images without captions are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sglora_cli.api import BadFile, FetchPlan, Listed, Task, Unavailable, text_lines

from .download import Remote
from .published import Piece, Published
from .tasks import Row, captioned, counted, gathered, is_complete, layout_captions, listed, not_captioned

LISTS = {"trainval": "train", "test": "test"}
BREEDS = 37
NAME, FOLDER = "pets", "oxford-iiit-pet"
SITE = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
ARCHIVES = {  # checksums from torchvision, sizes from its server's Content-Length
    "annotations": Remote(f"{SITE}/annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f", 19_173_078),
    "images": Remote(f"{SITE}/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c", 791_918_971),
}


@dataclass(frozen=True)
class Pets:
    name: str = NAME
    summary: str = "Oxford-IIIT Pet in torchvision's layout, a task per breed"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Return every breed with a captioned image, sorted.

        Raises Unavailable without the lists or captions, BadFile with path and line for invalid content.
        """
        rows = list(_rows(root))
        captions = layout_captions(root, "images/pug_16.jpg")
        return gathered(root, captioned(root, rows, dict(captions), NAME))

    def images(self, root: Path) -> Sequence[Listed]:
        """Return every listed image, in the lists' order. Like `tasks`, but needs no captions."""
        return listed(root, _rows(root), NAME)

    def image_counts(self, root: Path) -> tuple[int, int]:
        """Count the images named in the lists."""
        return counted(root, _rows(root))

    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        """Yield listed images without captions, and images in `images` that are not listed."""
        return not_captioned(root, _rows(root), "images")

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Download missing files (811 MB) and verify them. Captions are not included."""
        return _published(data / FOLDER).fetch(note)

    def fetch_plan(self, data: Path) -> FetchPlan:
        return _published(data / FOLDER).plan()


def _published(root: Path) -> Published:
    def here(folder: str) -> bool:
        return is_complete(root, _rows) if folder == "images" else (root / folder / "test.txt").is_file()

    pieces = [Piece(remote, partial(here, folder)) for folder, remote in ARCHIVES.items()]
    return Published(root, pieces, root, captions=False)


def _rows(root: Path) -> Iterator[Row]:
    """Yield every listed image, after checking that both lists exist."""
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
    """Parse image name and class id of a line like `Abyssinian_101 1 1 1`."""
    parts = line.split()
    if len(parts) != 4 or not all(part.isdecimal() for part in parts[1:]) or "_" not in parts[0]:
        raise BadFile(f"{where}: expected `Image_id class species breed`, got {line.strip()!r:.100}")
    if len(parts[1]) > 9 or not 1 <= int(parts[1]) <= BREEDS:
        raise BadFile(f"{where}: the class must be 1 to {BREEDS}, got {parts[1]:.20}")
    return parts[0], parts[1]
