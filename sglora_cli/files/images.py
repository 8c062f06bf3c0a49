"""Photos decoded safely."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sglora_cli.errors import BadFile

if TYPE_CHECKING:
    from PIL.Image import Image

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
