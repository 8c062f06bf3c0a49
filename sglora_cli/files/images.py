"""Photos: those in a folder, and each decoded safely."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.errors import BadFile, UsageError
from sglora_cli.files.hashes import data_hash
from sglora_cli.files.untrusted import read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_PIXEL_LIMIT = 100_000_000
_BYTE_LIMIT = 1 << 30
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # not EPS: Pillow runs Ghostscript for it


def read_image(path: Path, sha256: str = "") -> Image:
    """A photo, decoded, upright, in RGB. Raises BadFile if it is missing, broken or far too large.

    sha256: the hash that its bytes must have, in hexadecimal, if they were read before. Raises BadFile if they changed.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(_same_bytes(path, sha256) if sha256 else path, formats=_IMAGE_FORMATS) as image:
            if image.width * image.height > _PIXEL_LIMIT:
                raise BadFile(f"{path} has {image.width} x {image.height} pixels, more than {_PIXEL_LIMIT}")
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise BadFile.missing(path, "image ") from None
    except BadFile:
        raise
    except Exception as error:  # a broken byte may lead Pillow anywhere
        raise BadFile(f"image {path} cannot be decoded: {error or type(error).__name__}") from None


def _same_bytes(path: Path, sha256: str) -> io.BytesIO:
    """The content of a photo that was read before."""
    data = read_bytes(path, _BYTE_LIMIT)
    if data_hash(data) != sha256:
        raise BadFile(f"{path} changed while it was worked on", "run it again when nobody writes the photos")
    return io.BytesIO(data)


def image_files(folder: Path, hint: str = "pass --images DIR") -> dict[str, Path]:
    """All images under a folder, hidden ones aside, by their name in it.

    Raises UsageError with the hint if there is no such folder, BadFile if there is no image in it.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", hint)
    paths = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root) / name
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                paths[printable_name(path.relative_to(folder))] = path
    if not paths:
        raise BadFile(f"there is no image in {folder}", f"images end in {', '.join(sorted(SUFFIXES))}")
    return paths


def printable_name(path: Path) -> str:
    """A file's name as it can be printed anywhere."""
    text = os.fsencode(path.as_posix()).decode(errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
