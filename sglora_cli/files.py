"""Files that are whole or absent, that say what they are, and that are the same bytes for the same content.

One metadata key `sglora` holds sorted JSON: safetensors writes several keys in a different
order in every process.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglora_cli.drafts import writing
from sglora_cli.errors import BadFile
from sglora_cli.strict import JSON_LIMIT, json_value, name_fault, read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

KEY = "sglora"
_HEADER_LIMIT = 50_000_000
_PIXEL_LIMIT = 100_000_000
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # not EPS: Pillow runs Ghostscript for it


def write_bytes(path: Path, data: bytes) -> None:
    """Write all of it or nothing."""
    with writing(path) as file:
        file.write(data)


def write_json(path: Path, content: Any) -> None:
    write_bytes(path, (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None, limit: int = JSON_LIMIT) -> Any:
    """The content of a JSON file; `hook` may replace every object as soon as it is read, so that a large file is
    never whole in memory. Raises BadFile with the line where it breaks, or for more than `limit` bytes."""
    return parse_json(read_bytes(path, limit), str(path), hook)


def parse_json(data: bytes, where: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value of JSON in UTF-8. Raises BadFile with the line where it breaks."""
    try:
        return json_value(data.decode("utf-8"), hook)
    except json.JSONDecodeError as error:
        raise BadFile(f"{where}, line {error.lineno}: not JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise BadFile(f"cannot read {where}: {error}") from None
    except ValueError as error:
        raise BadFile(f"{where}: {error}") from None


def packed_about(about: Mapping[str, Any]) -> str:
    """What a file is, as the one metadata value it gets."""
    return json.dumps(about, sort_keys=True, ensure_ascii=False)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what they are; equal inputs give equal bytes."""
    from safetensors.torch import save

    header = {KEY: packed_about(about)}
    write_bytes(path, save({name: tensors[name].contiguous() for name in sorted(tensors)}, metadata=header))


def load_tensors(path: Path, names: tuple[str, ...] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a safetensors file, all or only `names`, and its `sglora` metadata ({} when it has none).

    Raises BadFile for anything that is not a whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    about = read_about(path)
    try:
        with safe_open(str(path), "pt") as file:
            wanted = names if names is not None else tuple(file.keys())
            missing = set(wanted) - set(file.keys())
            if missing:
                raise BadFile(f"{path} has no tensor {sorted(missing)[0]!r}")
            return {name: file.get_tensor(name) for name in wanted}, about
    except (SafetensorError, OSError, ValueError) as error:
        raise BadFile(f"{path} is not a whole safetensors file: {error}", "fetch or generate it again") from None


def read_about(path: Path) -> dict[str, Any]:
    """The `sglora` metadata of a safetensors file, without reading its tensors."""
    return tensor_names(path)[1]


def tensor_names(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Names of a safetensors file's tensors, and its `sglora` metadata; reads the header only."""
    header = safetensors_header(path)
    metadata = header.pop("__metadata__", {})
    return list(header), _about(path, metadata.get(KEY) if isinstance(metadata, dict) else None)


def _about(path: Path, text: Any) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        about = json_value(text)
    except (ValueError, TypeError):
        raise BadFile(f"{path}: its {KEY!r} metadata is not JSON") from None
    if not isinstance(about, dict):
        raise BadFile(f"{path}: its {KEY!r} metadata is not a table")
    return about


def safetensors_header(path: Path) -> dict[str, Any]:
    """The table at the start of a safetensors file. Raises BadFile."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
            if not 0 < size <= min(_HEADER_LIMIT, path.stat().st_size):
                raise BadFile(f"{path} is not a safetensors file", "an adapter is a .safetensors file")
            header = json_value(file.read(size).decode("utf-8"))
    except FileNotFoundError:
        raise BadFile.missing(path) from None
    except (OSError, ValueError) as error:
        raise BadFile(f"{path} is not a safetensors file: {error}") from None
    if not isinstance(header, dict):
        raise BadFile(f"{path} is not a safetensors file: its header is not a table")
    return header


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    return digest.hexdigest()


def content_hash(*parts: Any) -> str:
    """SHA-256 of tensors, texts and JSON values, in hexadecimal: the name of what follows from them."""
    import torch

    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            array = part.detach().cpu().contiguous()
            digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
            digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()


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


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`; BadFile when it would lead outside."""
    if fault := name_fault(name):
        raise BadFile(f"{name[:100]!r} is no file name: it {fault}")
    try:
        path = (folder / name).resolve()
        round_and_round = any(one.is_symlink() for one in (path, *path.parents))  # Python 3.13 raises nothing
    except (OSError, RuntimeError):
        round_and_round = True
    if round_and_round:
        raise BadFile(f"{name[:100]!r} in {folder} cannot be followed", "it may be a link in a circle")
    if not path.is_relative_to(folder.resolve()):
        raise BadFile(f"{name!r} leads out of {folder}", "remove it; a pack or data set names only files of its own")
    return path
