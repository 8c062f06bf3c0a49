"""Photos: what is decoded and how, which files are one, and names that can be printed."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from speckles import speckles

from sglora_cli.errors import BadFile
from sglora_cli.files.hashes import file_hash
from sglora_cli.files.images import (
    has_more_frames,
    image_endings,
    image_files,
    other_images,
    printable_name,
    read_image,
    why_unread,
)
from sglora_cli.files.passed_over import PassedOver

RAMP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(4, 16)
"""Grey levels of 16 bits, all different in their upper 8, from black to white."""


def png(values: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits; `colour` is 0 grey, 2 RGB, 4 grey with alpha, 6 RGB with alpha."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(data: bytes, bits: int, shape: tuple[int, int] = (4, 16), order: str = "<", kind: int = 1, zero: int = 1):
    """A grey TIFF without compression; `kind` is its sample format, `zero` whether 0 is black (1) or white (0)."""
    tags = {256: shape[1], 257: shape[0], 258: bits, 259: 1, 262: zero, 273: 0, 277: 1, 278: shape[0], 279: len(data)}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    tags[339] = kind
    table = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return start + table + bytes(4) + data


def packed_12_bits(values: np.ndarray) -> bytes:
    bits = "".join(f"{value:012b}" for value in values.flat)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def saved(image: Image.Image, format: str, **options) -> bytes:
    import io

    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)
OPAQUE = np.full_like(RAMP, 65535)
GREY = Image.fromarray(RAMP)
SIXTEEN = {
    "grey.png": png(RAMP, 0),
    "grey alpha.png": png(np.stack([RAMP, OPAQUE], -1), 4),
    "colour.png": png(COLOURS, 2),
    "colour alpha.png": png(np.concatenate([COLOURS, OPAQUE[..., None]], -1), 6),
    "little.tif": tiff(RAMP.astype("<u2").tobytes(), 16),
    "big.tif": tiff(RAMP.astype(">u2").tobytes(), 16, order=">"),
    "packed.tif": saved(GREY, "TIFF", compression="tiff_lzw"),
    "negative.tif": tiff((65535 - RAMP).astype("<u2").tobytes(), 16, zero=0),
    "twelve.tif": tiff(packed_12_bits(RAMP >> 4), 12),
    "grey.pgm": b"P5 16 4 65535\n" + RAMP.astype(">u2").tobytes(),
    "twelve.pgm": b"P5 16 4 4095\n" + (RAMP >> 4).astype(">u2").tobytes(),
    "colour.ppm": b"P6 16 4 65535\n" + COLOURS.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("name", SIXTEEN)
def test_more_than_8_bits_are_scaled_to_8(tmp_path, name):
    """Within one level: formats of 12 bits are scaled to 16 first."""
    path = tmp_path / name
    path.write_bytes(SIXTEEN[name])
    pixels_HWC = np.asarray(read_image(path)).astype(int)
    wanted_HWC = (COLOURS if "colour" in name else np.stack([RAMP] * 3, -1)).astype(int) >> 8
    assert np.abs(pixels_HWC - wanted_HWC).max() <= 1


REFUSED = {
    "int32.tif": (saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "has signed or 32-bit pixels"),
    "unsigned.tif": (tiff((RAMP.astype("<u4") << 16).tobytes(), 32), "has signed or 32-bit pixels"),
    "signed.tif": (tiff((RAMP >> 1).astype("<i2").tobytes(), 16, kind=2), "has signed or 32-bit pixels"),
    "float.tif": (tiff((RAMP / 65535).astype("<f4").tobytes(), 32, kind=3), "has floating-point pixels"),
    "double.tif": (tiff((RAMP / 65535).astype("<f8").tobytes(), 64, kind=3), "cannot be decoded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pixels_that_do_not_say_what_is_white_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(REFUSED[name][0])
    with pytest.raises(BadFile) as error:
        read_image(path)
    assert error.value.message.startswith(f"image {path} {REFUSED[name][1]}")


def test_a_tiff_with_its_16_bit_colours_apart_is_refused_since_pillow_misreads_it(tmp_path):
    path = tmp_path / "x.tif"
    Image.fromarray(np.zeros((4, 16, 3), np.uint8)).save(path, tiffinfo={284: 2})
    whole = path.read_bytes()
    assert read_image(path).size == (16, 4)  # those of 8 bits are read
    at = whole.index(struct.pack("<HHI", 258, 3, 3))  # the three depths stand at the address that follows
    depths = struct.unpack("<I", whole[at + 8 : at + 12])[0]
    path.write_bytes(whole[:depths] + struct.pack("<HHH", 16, 16, 16) + whole[depths + 6 :] + bytes(1000))
    with pytest.raises(BadFile, match="has planar colours with 16 bits each"):
        read_image(path)


CLEAR = np.zeros((4, 6, 4), dtype=np.uint8)
CLEAR[:, 0], CLEAR[:, 1] = (200, 10, 10, 255), (200, 10, 10, 128)
"""Red, half of red, and the rest black under full transparency."""


def see_through() -> dict[str, bytes]:
    image = Image.fromarray(CLEAR)
    flat = Image.fromarray(CLEAR[..., :3]).quantize(4)
    return {
        "rgba.png": saved(image, "PNG"),
        "rgba.webp": saved(image, "WEBP", lossless=True),
        "rgba.tif": saved(image, "TIFF"),
        "la.png": saved(image.convert("LA"), "PNG"),
        "palette.png": saved(image.quantize(8), "PNG"),
        "palette.gif": saved(flat, "GIF", transparency=flat.getpixel((5, 0))),
        "colour key.png": saved(Image.fromarray(CLEAR[..., :3]), "PNG", transparency=(0, 0, 0)),
    }


@pytest.mark.parametrize("name", see_through())
def test_what_is_transparent_is_white_and_not_what_lies_under_it(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(see_through()[name])
    pixels_HWC = np.asarray(read_image(path))
    assert pixels_HWC[0, 5].tolist() == [255, 255, 255]
    assert pixels_HWC[0, 0].tolist() == ([67, 67, 67] if name == "la.png" else [200, 10, 10])
    if name.startswith("rgba"):
        assert pixels_HWC[0, 1].tolist() == [227, 132, 132]  # half of red, half of white


@pytest.mark.parametrize("name", ["x.gif", "x.webp", "x.png", "x.tif"])
def test_of_an_animation_the_first_picture_is_taken_and_it_can_be_asked(tmp_path, name):
    red, blue = (Image.new("RGB", (6, 4), colour) for colour in ("red", "blue"))
    red.save(tmp_path / name, save_all=True, append_images=[blue])
    assert np.abs(np.asarray(read_image(tmp_path / name)).astype(int)[0, 0] - [255, 0, 0]).max() <= 1
    assert has_more_frames(tmp_path / name)
    red.save(tmp_path / name)
    assert not has_more_frames(tmp_path / name)


@pytest.mark.parametrize("turn", range(2, 9))
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "lzw.tif", "sixteen.png", "sixteen.tif"])
def test_a_photo_is_upright_however_it_is_turned(tmp_path, name, turn):
    """Orientations as EXIF numbers them: where its first row and column are when it is seen."""
    grey_HW = np.zeros((32, 48), np.uint8)
    grey_HW[:16, :16] = 255  # white at the top left of what is stored
    stored = Image.fromarray(grey_HW.astype(np.uint16) * 257 if "sixteen" in name else grey_HW)
    exif = Image.Exif()
    exif[274] = turn
    more = {"tiffinfo": {274: turn}} if name.endswith("tif") else {"exif": exif}
    stored.save(tmp_path / name, **more, **({"compression": "tiff_lzw"} if name.startswith("lzw") else {}))
    seen = np.asarray(read_image(tmp_path / name))[..., 0]
    corner = {2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[turn]
    assert seen.shape == ((32, 48) if turn < 5 else (48, 32))
    assert [seen[y, x] > 128 for y in (0, -1) for x in (0, -1)] == [(y, x) == corner for y in (0, -1) for x in (0, -1)]


def test_cmyk_is_seen_in_its_colours(tmp_path):
    ramp_HWC = np.zeros((16, 48, 3), np.uint8)
    ramp_HWC[..., 0] = np.linspace(0, 255, 48)
    Image.fromarray(ramp_HWC).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    assert np.abs(np.asarray(read_image(tmp_path / "x.jpg")).astype(int) - ramp_HWC).max() < 10


def test_every_ending_that_is_listed_is_decoded(tmp_path):
    formats = Image.registered_extensions()
    for ending in image_endings():
        format = formats.get(ending, "JPEG")  # Chrome's endings, and what phones call .mpo
        image = speckles(1, 16).convert("1" if ending == ".pbm" else "L" if ending == ".pgm" else "RGB")
        image.save(tmp_path / f"x{ending}", "JPEG" if format == "MPO" else format)
        assert read_image(tmp_path / f"x{ending}").size == (16, 16)
    assert {".jpg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"} <= image_endings()


def test_folders_in_the_folder_count_and_hidden_things_do_not(tmp_path):
    for name in ("b/c/x.JPG", "a.webp", ".hidden.png", ".git/y.png", "notes.txt", "b/z.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)
    images, passed_over = image_files(tmp_path)
    assert list(images) == ["a.webp", "b/z.jpeg", "b/c/x.JPG"]
    assert passed_over == [PassedOver("files that are not images", 1, ("notes.txt",))]


def test_a_linked_folder_is_a_folder_and_a_link_that_leads_nowhere_is_a_file(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/1.png").write_text("")
    (tmp_path / "near").mkdir()
    (tmp_path / "near/b").symlink_to(tmp_path / "far")
    (tmp_path / "near/gone.png").symlink_to(tmp_path / "nowhere.png")
    assert list(image_files(tmp_path / "near")[0]) == ["gone.png", "b/1.png"]


def test_images_that_are_not_read_are_counted_by_their_reason(tmp_path):
    for name in ("a.HEIC", "b.heic", "c.cr2", "d.txt", "f.png"):
        (tmp_path / name).write_text("")
    for name in ("g", "h.jpg_large"):
        (tmp_path / name).write_bytes(saved(speckles(1, 16), "JPEG"))
    images, passed_over = image_files(tmp_path)
    assert list(images) == ["f.png"]
    remedy = "which are not supported (convert them to JPEG or PNG)"
    assert {one.reason: one.examples for one in passed_over} == {
        f".heic images, {remedy}": ("a.HEIC", "b.heic"),
        f".cr2 images, {remedy}": ("c.cr2",),
        "images without an image extension (rename them)": ("g", "h.jpg_large"),
        "files that are not images": ("d.txt",),
    }
    (tmp_path / "f.png").unlink()
    with pytest.raises(BadFile, match=r"found no images in .*; \.heic images, which are not supported .*: 2 "):
        image_files(tmp_path)


def test_a_format_that_this_pillow_lacks_is_said_to_be_so(monkeypatch):
    monkeypatch.setattr("sglora_cli.files.images.image_endings", lambda: frozenset({".jpg"}))
    assert why_unread(Path("x.avif")).startswith(".avif images, which are not supported")


def test_images_besides_those_that_are_known_have_a_reason(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/e\u0301.png", "b/2.png", "3.heic", "notes.txt", "4.JPG"):
        (tmp_path / name).write_text("")
    others = other_images(tmp_path, {"b/\xe9.png"}, "images that nobody names")  # é as one letter, and as two
    assert list(others) == [
        ("3.heic", ".heic images, which are not supported (convert them to JPEG or PNG)"),
        ("4.JPG", "images that nobody names"),
        ("b/2.png", "images that nobody names"),
    ]


def test_names_that_cannot_be_printed_are_made_printable():
    assert printable_name(Path(os.fsdecode(b"a\xff.png"))) == "a\ufffd.png"
    assert printable_name(Path("a\x1b[2J.png")) == "a\ufffd[2J.png"


def test_a_link_to_itself_is_a_file_that_cannot_be_read(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "round.png").symlink_to("round.png")
    paths, passed_over = image_files(tmp_path)
    assert (list(paths), passed_over) == (["a.png", "round.png"], [])
    with pytest.raises(BadFile, match="Too many levels of symbolic links"):
        read_image(paths["round.png"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_no_photo_whatever_leads_to_it(tmp_path):
    """Who opens one waits for a writer that never comes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (folder / "link.png").symlink_to(tmp_path / "pipe.png")
    os.mkfifo(folder / "own.png")
    assert list(image_files(folder)[0]) == ["a.png"]
    for path in (folder / "own.png", folder / "link.png"):
        with pytest.raises(BadFile, match=r"image .*\.png is a pipe, a socket or a device, not a file"):
            read_image(path)
        with pytest.raises(BadFile, match=r"\.png is a pipe, a socket or a device, not a file"):
            file_hash(path)
