"""Photos: which files are one, those in a folder, and each decoded safely to 8 bits of red, green and blue."""

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
_FORMATS = {  # not EPS: Pillow runs Ghostscript for it
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
"""Pillow's name of a format that is decoded -> the endings of its files."""
_OPTIONAL = {"WEBP": "PIL._webp", "AVIF": "PIL._avif"}
"""Formats that a Pillow may lack, and the module it has them in."""
_OTHERS = (
    ".heic .heif .hif .jxl .jp2 .j2k .j2c .jpc .jpf .jpx .svg .psd .xcf .tga .ico .icns .eps .exr .hdr .pfm .pcx .dds "
    ".raw .dng .cr2 .cr3 .nef .nrw .arw .srf .orf .rw2 .raf .pef .srw .qoi .wmf .emf .xbm .xpm"
)
"""Endings of pictures that are not decoded here."""
_ORIENTATION, _BITS, _PHOTOMETRIC, _PLANES = 274, 258, 262, 284
"""Tags of EXIF and TIFF."""
_FIRST_BYTES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")


@cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are decoded on this machine."""
    return tuple(name for name in _FORMATS if name not in _OPTIONAL or find_spec(_OPTIONAL[name]))


@cache
def image_endings() -> frozenset[str]:
    """Endings of the images that are decoded on this machine, as ".jpg", in lower case: the list of every reader."""
    return frozenset(ending for name in image_formats() for ending in _FORMATS[name].split())


def read_image(path: Path, sha256: str = "") -> Image:
    """A photo, decoded, upright, in RGB: the first of an animation, on white where it is transparent.

    Grey pictures of up to 16 bits are scaled to 8. Raises BadFile if it is missing, broken or far too large, or has
    pixels that do not say what is white: those of 32 bits, floating point or with a sign.

    sha256: the hash that its bytes must have, in hexadecimal, if they were read before. Raises BadFile if they changed.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    check_regular(path, "image ")
    try:
        # Not by its name: Pillow maps a TIFF into memory then, and one that is to be turned is scrambled.
        with (
            _same_bytes(path, sha256) if sha256 else path.open("rb") as file,
            Image.open(file, formats=image_formats()) as image,
        ):
            if image.width * image.height > _PIXEL_LIMIT:
                raise BadFile(f"{path} has {image.width} x {image.height} pixels, more than {_PIXEL_LIMIT}")
            image.load()  # turns a TIFF, which `exif_transpose` would turn once more
            return _rgb(ImageOps.exif_transpose(_eight_bits(image, path)))
    except FileNotFoundError:
        raise BadFile.missing(path, "image ") from None
    except BadFile:
        raise
    except UnidentifiedImageError:
        raise BadFile(f"image {path} cannot be decoded: it is no {', '.join(image_formats())}") from None
    except Exception as error:  # a broken byte may lead Pillow anywhere
        raise BadFile(f"image {path} cannot be decoded: {error or type(error).__name__}") from None


def _same_bytes(path: Path, sha256: str) -> io.BytesIO:
    """The content of a photo that was read before."""
    data = read_bytes(path, _BYTE_LIMIT)
    if data_hash(data) != sha256:
        raise BadFile(f"{path} changed while it was worked on", "run it again when nobody writes the photos")
    return io.BytesIO(data)


def _eight_bits(image: Image, path: Path) -> Image:
    """Grey of more than 8 bits as 8: Pillow's own conversion cuts, and everything above 255 is white.

    Colours of 16 bits need nothing: Pillow takes their upper half when it reads them.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # of a TIFF
    bits = max(tags.get(_BITS, (16,)))
    if not image.mode.startswith(("I", "F")):
        if tags and bits > 8 and tags.get(_PLANES) == 2:
            raise BadFile(
                f"image {path} has its colours apart, with {bits} bits each, which Pillow misreads",
                "save its channels interleaved, or as PNG",
            )
        return image
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))):
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise BadFile(
            f"image {path} has {kind} pixels, which do not say what is white",
            "save it with 8 or 16 bits a channel",
        )
    import numpy as np
    from PIL import Image

    grey_HW = (np.asarray(image).astype(np.uint16) >> max(0, bits - 8)).astype(np.uint8)
    white_is_zero = tags.get(_PHOTOMETRIC) == 0  # Pillow turns that round for 8 bits only
    eight = Image.fromarray(255 - grey_HW if white_is_zero else grey_HW)
    eight.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return eight


def _rgb(image: Image) -> Image:
    """In RGB, on white: what lies under transparent pixels was never meant to be seen."""
    from PIL import Image

    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def has_more_frames(path: Path) -> bool:
    """Whether `read_image` takes the first of several pictures: of an animation, or of a TIFF's pages.

    A photo of a phone may hold a preview or a depth map beside itself: that is no second picture.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=[name for name in image_formats() if name != "JPEG"]) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # as above; and who reads it says what is wrong
        return False


def why_undecoded(ending: str) -> str:
    """What files with this ending, in lower case, are, if they are images that are not decoded here; else ""."""
    known = ending in " ".join((_OTHERS, *_FORMATS.values())).split() and ending not in image_endings()
    return f"{ending} images, which are not decoded here; convert them to JPEG or PNG" if known else ""


def why_unread(path: Path) -> str:
    """What a file is that no reader takes for an image, although it is one; "" for any other file."""
    ending = path.suffix.lower()
    if ending in image_endings():
        return ""
    if os.path.isdir(path):
        return "folders that cannot be read"
    if why := why_undecoded(ending):
        return why
    return "images without an image's ending; rename them" if _looks_like_an_image(path) else ""


def _looks_like_an_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(_FIRST_BYTES) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def visible_files(folder: Path) -> Iterator[Path]:
    """All files under a folder but hidden ones, sorted folder by folder, and folders that cannot be read.

    A link to a folder is a folder, unless it leads into a circle. Pipes and devices are no files.
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
        # An entry itself would raise for a link that leads to itself. One that leads nowhere is a file, whose reader
        # says so; one that leads to a pipe is none.
        if os.path.isfile(entry) or (entry.is_symlink() and not os.path.exists(entry)):
            yield folder / entry.name
    for entry in entries:
        if os.path.isdir(entry):
            yield from _files(folder / entry.name, (*above, own))


def image_files(folder: Path, hint: str = "pass --images DIR") -> tuple[dict[str, Path], list[PassedOver]]:
    """All images under a folder, hidden ones aside, by their name in it; and the files that are none, or not read.

    Raises UsageError with the hint if there is no such folder, BadFile if there is no image in it.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", hint)
    paths, others = {}, []
    for path in visible_files(folder):
        name = printable_name(path.relative_to(folder))
        if path.suffix.lower() in image_endings():
            paths[name] = path
        else:
            others.append((name, why_unread(path) or "files that are no images"))
    passed_over = tally(others)
    if not paths:
        more = f"; {passed_over[0]}" if passed_over else ""
        raise BadFile(f"there is no image in {folder}{more}", f"images end in {', '.join(sorted(image_endings()))}")
    return paths, passed_over


def other_images(root: Path, known: Collection[str], reason: str) -> Iterator[tuple[str, str]]:
    """(name, reason) of every image under a folder whose name below it is not among the `known` ones.

    For a data set's `passed_over`: the reason of an image that is not decoded here is that, and `reason` else.
    """
    names = {unicodedata.normalize("NFC", name) for name in known}
    for path in visible_files(root):
        name = path.relative_to(root).as_posix()
        if unicodedata.normalize("NFC", name) not in names:
            why = reason if path.suffix.lower() in image_endings() else why_unread(path)
            if why:
                yield printable_name(Path(name)), why


def printable_name(path: Path) -> str:
    """A file's name as it can be printed anywhere."""
    text = os.fsencode(path.as_posix()).decode(errors="replace")
    if text.isprintable():  # nearly all: a folder may have many thousands
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
