"""Weights of a CLIP model from a file or folder, and the settings beside them.

Supported are open_clip's files (.safetensors, or .pt of plain tensors), OpenAI's archives, and transformers'
CLIPModel (its folder, or its model.safetensors). Nothing is unpickled, because .pt files are read by torch's
weights-only reader. OpenAI's archives are TorchScript, which is a program. They are opened only if their SHA-256 is
the published one, and only the hashed bytes are opened.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sglora_cli.api import FOLDER_FILES, BadFile, SgloraWarning, Unavailable, data_hash, read_bytes, read_state

from .beside import Beside, read_beside
from .names import own_name, to_open_clip
from .parts import part
from .said import Said
from .text import is_text, text_state

OPENAI = {  # SHA-256 of the archives as published beside the CLIP paper; all use QuickGELU
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B/32",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "ViT-B/16",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L/14",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L/14@336px",
}
_PUBLISHED_LIMIT = 1 << 30
"""Size limit of such an archive. The largest has 934 million bytes."""


@dataclass(frozen=True)
class ClipWeights:
    """A state with open_clip's names, and the settings found with it."""

    path: Path
    state: dict[str, Tensor] = field(repr=False)
    beside: Beside


def find(path: Path) -> Path:
    """Return the weight file at a path, which may be a folder. Raises Unavailable, BadFile if there is none."""
    if not path.exists():
        remedy = f"pass a file, or a folder with one of {', '.join(FOLDER_FILES)}"
        raise Unavailable.missing(path, "weights file ", remedy)
    if path.is_dir():
        files = [path / name for name in FOLDER_FILES if (path / name).is_file()]
        if not files:
            raise BadFile(f"folder {path} has none of {', '.join(FOLDER_FILES)}", "pass the file itself")
        path = files[0]
        if others := [file.name for file in files[1:]]:
            text = f"using {path}, but the folder also has {', '.join(others)} (choose one with --weights)"
            warnings.warn(text, SgloraWarning, stacklevel=2)
    return path


def read(path: Path) -> ClipWeights:
    """Read weights. Raises Unavailable if they do not exist, BadFile for anything but weights of a CLIP model."""
    path = find(path)
    state = read_whole(path)
    return ClipWeights(path, state, _published_config(path) if _is_torchscript(path) else read_beside(path.parent))


def read_whole(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a weight file by open_clip's names. Raises BadFile unless they are a CLIP model's."""
    state = _renamed(path, lambda _: True)
    if not any(name.startswith("visual.") for name in state):
        raise BadFile(
            f"{path} contains no CLIP model, because no tensor is named visual.*",
            "save the state_dict of a model of open_clip, or of a CLIPModel of transformers",
        )
    return state


def read_text(path: Path) -> dict[str, Tensor]:
    """Read only the text encoder's tensors, with the names of `text_state`. Raises BadFile."""
    return text_state(_renamed(path, is_text))


def _renamed(path: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    if _is_torchscript(path):
        state = {name: tensor for name, tensor in _published(path).items() if wanted(name)}
    else:
        state = read_state(path, wanted=lambda name: wanted(own_name(name)))[0]
    return to_open_clip(state)


def _published(path: Path) -> dict[str, Tensor]:
    """Read the state of an OpenAI archive. Raises BadFile for any other program."""
    if path.stat().st_size > _PUBLISHED_LIMIT or data_hash(data := read_bytes(path, _PUBLISHED_LIMIT)) not in OPENAI:
        raise BadFile(
            f"{path} is a TorchScript archive, which is a program, and OpenAI did not publish it",
            "save its state_dict as .safetensors",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, but OpenAI's files remain
        script = torch.jit.load(io.BytesIO(data), map_location="cpu")
    sizes = ("input_resolution", "context_length", "vocab_size")
    return {name: tensor for name, tensor in script.state_dict().items() if name not in sizes}


def _published_config(path: Path) -> Beside:
    """Return the settings of OpenAI's archives. Other files in their folder do not apply to them."""
    constants, where = part("constants"), f"{path}, as OpenAI published it"
    colours = {"mean": constants.OPENAI_DATASET_MEAN, "std": constants.OPENAI_DATASET_STD}
    photos = {**colours, "interpolation": "bicubic", "resize_mode": "shortest"}
    return Beside(Said(True, where), {key: Said(value, f"{key} of {where}") for key, value in photos.items()})


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # reading its tensors reports the error
