"""CIFAR-100 as classification tasks: one per superclass, with its five classes ("aquatic mammals": "beaver", ...).

Reads torchvision's layout (a folder cifar-100-python), or the authors' binary version (see cifar_files.py). The rest of
sglora expects photos as files, so the 60,000 images are written as PNG once, into the user cache (the data folder may
be read-only), in a folder named by the hash of the source files. They have one folder per split and class, and are
named by number. A list of their hashes is stored with them. If an image differs from it, all are written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglora_cli.api import (
    BadFile,
    FetchPlan,
    Photo,
    Task,
    Unavailable,
    cache_folder,
    content_hash,
    file_hash,
    is_intact,
    locked,
    progress,
    put_folder,
    read_sealed,
    scratch_folder,
    write_sealed,
)

from .cifar_files import Cifar, files, read_cifar
from .download import Remote
from .published import Piece, Published
from .tasks import classified

FOLDER = "cifar-100-python"
# The checksum is from torchvision, the size from its server's Content-Length.
ARCHIVE = Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", 169_001_437
)
HASHES = "hashes.json"
"""The file beside the images with the SHA-256 of each image, in order."""


@dataclass(frozen=True)
class Cifar100:
    name: str = "cifar100"
    summary: str = "CIFAR-100 (torchvision or binary layout), a classification task per superclass"

    def tasks(self, root: Path) -> Sequence[Task]:
        """Return every superclass, sorted. The first call writes the images into the user cache.

        Raises Unavailable without the files, BadFile with the path for invalid files.
        """
        cifar = read_cifar(root)
        owner = _superclasses(cifar)
        folder = _images(root, cifar)
        photos = (
            (cifar.coarse[owner[label]], split, Photo(folder / _name(split, label, n), (cifar.fine[label],)))
            for split, label, n in _numbers(cifar)
        )
        return classified(root, str(cifar.names), photos)

    def fetch(self, data: Path, note: Callable[[str], None]) -> Path:
        """Download missing files (169 MB) and verify them."""
        root = _published(data / FOLDER).fetch(note)
        note("writing its images into the user cache")
        _images(root, read_cifar(root))
        return root

    def fetch_plan(self, data: Path) -> FetchPlan:
        return _published(data / FOLDER).plan()


def _published(root: Path) -> Published:
    def here() -> bool:
        return all((root / name).exists() for name in ("meta", "train", "test"))

    return Published(root, [Piece(ARCHIVE, here)], within=root.parent)  # the archive contains the folder


def _superclasses(cifar: Cifar) -> dict[int, int]:
    """Return class -> superclass. Raises BadFile if a class is in two superclasses or has no image."""
    owner: dict[int, int] = {}
    for side in cifar.sides.values():
        for n, (label, superclass) in enumerate(zip(side.fine, side.coarse, strict=True)):
            if (first := owner.setdefault(label, superclass)) != superclass:
                name, one, two = cifar.fine[label], cifar.coarse[first], cifar.coarse[superclass]
                raise BadFile(
                    f"{side.path}: image {n} has class {name!r} in superclass {two!r}, but others have it in {one!r}"
                )
    if missing := [name for label, name in enumerate(cifar.fine) if label not in owner]:
        raise BadFile(f"{cifar.names}: no image has class {missing[0]!r} (such classes: {len(missing)})")
    return owner


def _name(split: str, label: int, n: int) -> str:
    """Return a file name with numbers only, because class names may not be valid paths."""
    return f"{split}/{label:02d}/{n:05d}.png"


def _images(root: Path, cifar: Cifar) -> Path:
    """Return the folder of all images as PNG. It is written atomically unless it exists and is intact."""
    key = content_hash([file_hash(path) for path in files(root)])[:16]
    folder = cache_folder() / "images" / f"cifar100-{key}"
    paths = [_name(*image) for image in _numbers(cifar)]
    if not _whole(folder, paths):
        with locked(folder):
            if not _whole(folder, paths):  # check again after waiting for the lock
                with scratch_folder(folder) as draft:
                    _write(draft, cifar)
                    write_sealed(draft / HASHES, [file_hash(draft / path) for path in paths])
                    put_folder(draft, folder)
    return folder


def _whole(folder: Path, paths: Sequence[str]) -> bool:
    """Return whether all images exist and match their hashes."""
    try:
        hashes = read_sealed(folder / HASHES)
    except BadFile:
        return False
    pairs = zip(paths, hashes, strict=False)
    return len(hashes) == len(paths) and all(is_intact(folder / path, sha256) for path, sha256 in pairs)


def _write(folder: Path, cifar: Cifar) -> None:
    from PIL import Image

    try:
        for split, label, n in progress(list(_numbers(cifar)), "images"):
            path = folder / _name(split, label, n)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(cifar.sides[split].pixels_NHWC[n]).save(path)
    except OSError as error:
        raise Unavailable(
            f"cannot write images into {folder.parent}: {error.strerror}", "free some space there"
        ) from error


def _numbers(cifar: Cifar) -> Iterator[tuple[str, int, int]]:
    """Yield split, class and number of every image."""
    return ((split, label, n) for split, side in cifar.sides.items() for n, label in enumerate(side.fine))
