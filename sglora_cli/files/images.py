"""Recognise photos, list them in folders, and safely decode them to 8-bit RGB."""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.errors import BadFile, UsageError
from sglora_cli.files.hashes import data_hash
from sglora_cli.files.passed_over import PassedOver, tally
from sglora_cli.files.untrusted import check_regular, read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

_PIXEL_LIMIT = 100_000_000
_BYTE_LIMIT = 1 << 30
_FORMATS = {  # not EPS, for which Pillow runs Ghostscript
    "JPEG": ".jpg .jpeg .jpe .jfif .pjpeg .pjp .mpo",
    "PNG": ".png .apng",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif .tiff",
    "PPM": ".ppm .pgm .pbm .pnm",
    "DIB": ".dib",
    "AVIF": ".avif .avifs",
}
"""Pillow's name of a supported format -> its file extensions."""
_OPTIONAL = {"WEBP": "PIL._webp", "AVIF": "PIL._avif"}
"""Formats that a Pillow build may lack -> the module that provides them."""
_OTHERS = (
    ".heic .heif .hif .jxl .jp2 .j2k .j2c .jpc .jpf .jpx .svg .psd .xcf .tga .ico .icns .eps .exr .hdr .pfm .pcx .dds "
    ".raw .dng .cr2 .cr3 .nef .nrw .arw .srf .orf .rw2 .raf .pef .srw .qoi .wmf .emf .xbm .xpm"
)
"""Extensions of images that are not supported."""
_ORIENTATION, _BITS, _PHOTOMETRIC, _PLANES = 274, 258, 262, 284
"""EXIF and TIFF tags."""
_FIRST_BYTES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")


@cache
def image_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that this machine can decode."""
    return tuple(name for name in _FORMATS if name not in _OPTIONAL or find_spec(_OPTIONAL[name]))


@cache
def image_endings() -> frozenset[str]:
    """Return the extensions of images that this machine can decode, in lower case like ".jpg". All readers use it."""
    return frozenset(ending for name in image_formats() for ending in _FORMATS[name].split())


def read_image(path: Path, sha256: str = "") -> Image:
    """Decode a photo, upright and in RGB: the first frame of an animation, with transparency on white.

    Grey images of up to 16 bits are scaled to 8. Raises BadFile if it is missing, damaged or far too large, or if its
    pixels have no defined white: 32-bit, floating-point or signed ones.

    sha256: the hexadecimal hash of its bytes if they were read before. Raises BadFile if they changed.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    check_regular(path, "image ")
    try:
        # Not opened by name: Pillow would then memory-map a TIFF, which scrambles one that has to be rotated.
        with (
            _same_bytes(path, sha256) if sha256 else path.open("rb") as file,
            Image.open(file, formats=image_formats()) as image,
        ):
            if image.width * image.height > _PIXEL_LIMIT:
                raise BadFile(f"{path} has {image.width} x {image.height} pixels, the limit is {_PIXEL_LIMIT}")
            image.load()  # rotates a TIFF, which `exif_transpose` would rotate again
            return _rgb(ImageOps.exif_transpose(_eight_bits(image, path)))
    except FileNotFoundError:
        raise BadFile.missing(path, "image ") from None
    except BadFile:
        raise
    except UnidentifiedImageError:
        raise BadFile(f"image {path} cannot be decoded, it must be one of {', '.join(image_formats())}") from None
    except Exception as error:  # a damaged byte may raise any exception in Pillow
        raise BadFile(f"image {path} cannot be decoded: {error or type(error).__name__}") from None


def _same_bytes(path: Path, sha256: str) -> io.BytesIO:
    """Read a photo that must have the same bytes as before."""
    data = read_bytes(path, _BYTE_LIMIT)
    if data_hash(data) != sha256:
        raise BadFile(
            f"{path} changed during processing", "run the command again when no program is writing the photos"
        )
    return io.BytesIO(data)


def _eight_bits(image: Image, path: Path) -> Image:
    """Scale grey of more than 8 bits to 8, because Pillow's conversion clips everything above 255 to white.

    16-bit colours need no conversion, because Pillow reads their upper bytes.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # for a TIFF
    bits = max(tags.get(_BITS, (16,)))
    if not image.mode.startswith(("I", "F")):
        if tags and bits > 8 and tags.get(_PLANES) == 2:
            raise BadFile(
                f"image {path} has planar colours with {bits} bits each, which Pillow does not read correctly",
                "save it with interleaved channels, or as PNG",
            )
        return image
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))):
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise BadFile(
            f"image {path} has {kind} pixels, which have no defined white",
            "save it with 8 or 16 bits per channel",
        )
    import numpy as np
    from PIL import Image

    grey_HW = (np.asarray(image).astype(np.uint16) >> max(0, bits - 8)).astype(np.uint8)
    white_is_zero = tags.get(_PHOTOMETRIC) == 0  # Pillow inverts this for 8 bits only
    eight = Image.fromarray(255 - grey_HW if white_is_zero else grey_HW)
    eight.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return eight


def _rgb(image: Image) -> Image:
    """Convert to RGB on white. Colours under transparent pixels are not meant to be visible."""
    from PIL import Image

    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def has_more_frames(path: Path) -> bool:
    """Return whether `read_image` uses only the first of several images: of an animation, or of a TIFF's pages.

    A phone's photo may contain a preview or a depth map, which does not count as a second image.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=[name for name in image_formats() if name != "JPEG"]) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # as above; reading it reports the error
        return False


def why_undecoded(ending: str) -> str:
    """Return the reason to ignore files with this lower-case extension if they are unsupported images, or ""."""
    known = ending in " ".join((_OTHERS, *_FORMATS.values())).split() and ending not in image_endings()
    return f"{ending} images, which are not supported (convert them to JPEG or PNG)" if known else ""


def why_unread(path: Path) -> str:
    """Return the reason why an image file or unreadable folder is ignored, or "" for any other file."""
    ending = path.suffix.lower()
    if ending in image_endings():
        return ""
    if os.path.isdir(path):
        return "folders that cannot be read"
    if why := why_undecoded(ending):
        return why
    return "images without an image extension (rename them)" if _looks_like_an_image(path) else ""


def _looks_like_an_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(_FIRST_BYTES) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield all files under a folder except hidden ones, sorted within each folder, and unreadable folders.

    Links to folders are followed, except in cycles. Pipes and devices are skipped.
    """
    yield from _files(folder, ())


def _files(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    own = os.path.realpath(folder)
    if own in above:
        return
    try:
        entries = sorted(
            (entry for entry in os.scandir(folder) if not entry.name.startswith(".")), key=lambda e: e.name
        )
    except OSError:
        yield folder
        return
    for entry in entries:
        # An entry's own method would raise for a link to itself. A broken link counts as a file, whose reader
        # reports the error. A link to a pipe is skipped.
        if os.path.isfile(entry) or (entry.is_symlink() and not os.path.exists(entry)):
            yield folder / entry.name
    for entry in entries:
        if os.path.isdir(entry):
            yield from _files(folder / entry.name, (*above, own))


def image_files(folder: Path, hint: str = "pass --images DIR") -> tuple[dict[str, Path], list[PassedOver]]:
    """List all images under a folder by relative name, except hidden ones, and count all other files by reason.

    Raises UsageError with the hint if there is no such folder, BadFile if it contains no images.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", hint)
    paths, others = {}, []
    for path in visible_files(folder):
        name = printable_name(path.relative_to(folder))
        if path.suffix.lower() in image_endings():
            paths[name] = path
        else:
            others.append((name, why_unread(path) or "files that are not images"))
    passed_over = tally(others)
    if not paths:
        more = f"; {passed_over[0]}" if passed_over else ""
        raise BadFile(
            f"found no images in {folder}{more}", f"supported extensions: {', '.join(sorted(image_endings()))}"
        )
    return paths, passed_over


def other_images(root: Path, known: Collection[str], reason: str) -> Iterator[tuple[str, str]]:
    """Yield (name, reason) of every image under a folder whose relative name is not among the `known` ones.

    For a data set's `passed_over`. Images that cannot be decoded have this as their reason, others have `reason`.
    """
    names = {unicodedata.normalize("NFC", name) for name in known}
    for path in visible_files(root):
        name = path.relative_to(root).as_posix()
        if unicodedata.normalize("NFC", name) not in names:
            why = reason if path.suffix.lower() in image_endings() else why_unread(path)
            if why:
                yield printable_name(Path(name)), why


def printable_name(path: Path) -> str:
    """Return a file's name with all unprintable characters replaced."""
    text = os.fsencode(path.as_posix()).decode(errors="replace")
    if text.isprintable():  # fast path, because a folder may have many thousands
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
