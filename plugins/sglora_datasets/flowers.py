"""Oxford 102 Flowers in torchvision's layout: jpg/, imagelabels.mat, setid.mat, and captions.jsonl beside them.

A task is a species. The official training and validation images are for training, the test images for testing.
The .mat files define species and split. captions.jsonl only provides captions, using `image` ("jpg/image_00001.jpg")
and `captions`. Listed images without captions are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sglora_cli.api import BadFile, FetchPlan, Listed, Task, Unavailable, read_bytes

from .download import Remote
from .mat_files import LIMIT, number_lists
from .published import Piece, Published
from .tasks import Row, captioned, counted, gathered, is_complete, layout_captions, listed, not_captioned

NAME, FOLDER = "flowers", "flowers-102"
SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
FILES = {  # checksums from torchvision, sizes from its server's Content-Length
    "imagelabels.mat": Remote(f"{SITE}/imagelabels.mat", "e0620be6f572b9609742df49c70aed4d", 502),
    "setid.mat": Remote(f"{SITE}/setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c", 14_989),
    "jpg": Remote(f"{SITE}/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", 344_862_509),
}
LISTS = {"trnid": "train", "valid": "train", "tstid": "test"}
SPECIES = (  # class 1 to 102, as the data set's page lists them
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold", "tiger lily",
    "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon", "colt's foot", "king protea",
    "spear thistle", "yellow iris", "globe-flower", "purple coneflower", "peruvian lily", "balloon flower",
    "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger", "grape hyacinth",
    "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke", "sweet william", "carnation",
    "garden phlox", "love in the mist", "mexican aster", "alpine sea holly", "ruby-lipped cattleya", "cape flower",
    "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil", "sword lily", "poinsettia",
    "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion", "petunia",
    "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium", "orange dahlia",
    "pink-yellow dahlia", "cautleya spicata", "japanese anemone", "black-eyed susan", "silverbush",
    "californian poppy", "osteospermum", "spring crocus", "bearded iris", "windflower", "tree poppy", "gazania",
    "azalea", "water lily", "rose", "thorn apple", "morning glory", "passion flower", "lotus", "toad lily",
    "anthurium", "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow", "magnolia",
    "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove", "bougainvillea",
    "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower", "trumpet creeper", "blackberry lily",
)  # fmt: skip


@dataclass(frozen=True)
class Flowers:
    name: str = NAME
    summary: str = "Oxford 102 Flowers in torchvision's layout, a task per species"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Return every species with a captioned image, sorted.

        Raises Unavailable without the .mat files or captions, BadFile for invalid content.
        """
        rows = list(_rows(root))
        captions = layout_captions(root, "jpg/image_00001.jpg")
        return gathered(root, captioned(root, rows, dict(captions), NAME))

    def images(self, root: Path) -> Sequence[Listed]:
        """Return every listed image, in the lists' order. Like `tasks`, but needs no captions."""
        return listed(root, _rows(root), NAME)

    def image_counts(self, root: Path) -> tuple[int, int]:
        """Count the images named in setid.mat."""
        return counted(root, _rows(root))

    def passed_over(self, root: Path) -> Iterator[tuple[str, str]]:
        """Yield listed images without captions, and images in `jpg` that are not listed."""
        return not_captioned(root, _rows(root), "jpg")

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Download missing files (345 MB) and verify them. Captions are not included."""
        return _published(data / FOLDER).fetch(note)

    def fetch_plan(self, data: Path) -> FetchPlan:
        return _published(data / FOLDER).plan()


def _published(root: Path) -> Published:
    def here(name: str) -> bool:
        return is_complete(root, _rows) if name == "jpg" else (root / name).is_file()

    pieces = [Piece(remote, partial(here, name)) for name, remote in FILES.items()]
    return Published(root, pieces, root, captions=False)


def _numbers(path: Path, names: tuple[str, ...]) -> dict[str, list[int]]:
    """Read lists of whole numbers from a .mat file. Raises BadFile."""
    if not path.is_file():
        raise Unavailable(f"{path} does not exist", "`sglora data fetch flowers` downloads it into the data folder")
    try:
        table = number_lists(read_bytes(path, LIMIT))
    except ValueError as error:
        raise BadFile(f"{path} is not a .mat file: {error}", "download it again") from None
    if missing := [name for name in names if not table.get(name)]:
        raise BadFile(f"{path} has no numbers {missing[0]!r}", "download it again")
    return {name: table[name] for name in names}


def _rows(root: Path) -> Iterator[Row]:
    """Yield every listed image with its species."""
    labels = _numbers(root / "imagelabels.mat", ("labels",))["labels"]
    sides = _numbers(root / "setid.mat", tuple(LISTS))
    for name, split in LISTS.items():
        for number in sides[name]:
            where = f"{root / 'setid.mat'}, {name}"
            if not 1 <= number <= len(labels):
                raise BadFile(f"{where}: image {number} does not exist among {len(labels)} labels")
            if not 1 <= labels[number - 1] <= len(SPECIES):
                raise BadFile(f"{root / 'imagelabels.mat'}: image {number} has class {labels[number - 1]}")
            yield Row(f"jpg/image_{number:05d}.jpg", SPECIES[labels[number - 1] - 1], split, where)
