"""Photos: those in a folder, and each decoded safely."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.errors import BadFile, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_PIXEL_LIMIT = 100_000_000
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # not EPS: Pillow runs Ghostscript for it


def read_image(path: Path) -> Image:
    """A photo, decoded, upright, in RGB. Raises BadFile if it is missing, broken or far too large."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=_IMAGE_FORMATS) as image:
            if image.width * image.height > _PIXEL_LIMIT:
                raise BadFile(f"{path} has {image.width} x {image.height} pixels, more than {_PIXEL_LIMIT}")
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise BadFile.missing(path, "image ") from None
    except BadFile:
        raise
    except Exception as error:  # a broken byte may lead Pillow anywhere
        raise BadFile(f"image {path} cannot be decoded: {error or type(error).__name__}") from None


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
