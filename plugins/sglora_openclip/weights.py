"""Weights of a CLIP model from a file or folder, and what the file says of its activation.

Read are open_clip's files (.safetensors, or .pt of plain tensors), OpenAI's own archives, and transformers'
CLIPModel (its folder, or its model.safetensors). Nothing is unpickled: .pt goes through torch's weights-only
reader. OpenAI's archives are TorchScript, which is a program; they are opened only when their SHA-256 is
the published one.
"""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.api import BadFile, SgloraWarning, Unavailable, UnknownName, file_hash, read_json, read_state

from .names import is_transformers, to_open_clip

OPENAI = {  # SHA-256 of the archives as published beside the CLIP paper; all use QuickGELU
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B/32",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "ViT-B/16",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L/14",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L/14@336px",
}
FOLDER_FILES = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin", "pytorch_model.bin")


@dataclass(frozen=True)
class ClipWeights:
    """A state in open_clip's names. quick_gelu is None where the file does not say which activation it wants."""

    path: Path
    state: dict[str, Tensor]
    quick_gelu: bool | None
    preprocess: dict[str, Any]
    """What is said beside the file of how photos are prepared; {} where nothing is."""


def read(path: Path) -> ClipWeights:
    """Raises Unavailable if there is nothing, BadFile for anything but weights of a CLIP model."""
    if not path.exists():
        raise Unavailable(f"weights {path} do not exist", "name the file or folder of the weights with --weights")
    if path.is_dir():
        files = [path / name for name in FOLDER_FILES if (path / name).is_file()]
        if not files:
            raise BadFile(f"folder {path} has none of {', '.join(FOLDER_FILES)}", "name the file itself")
        path = files[0]
    openai = _is_torchscript(path)
    state = _published(path) if openai else read_state(path)[0]
    if is_transformers(state):
        state = to_open_clip(state)
    if not any(name.startswith("visual.") for name in state):
        raise BadFile(f"{path} holds no CLIP model: no tensor is called visual.*")
    quick_gelu, preprocess = _beside(path)
    return ClipWeights(path, state, True if openai else quick_gelu, preprocess)


def _published(path: Path) -> dict[str, Tensor]:
    """The state of an archive of OpenAI's. Raises BadFile for any other program."""
    if file_hash(path) not in OPENAI:
        raise BadFile(
            f"{path} is a TorchScript archive, which is a program, and not one that OpenAI published",
            "save its state_dict as .safetensors",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch would rather have no TorchScript; OpenAI's files stay
        script = torch.jit.load(str(path), map_location="cpu")
    sizes = ("input_resolution", "context_length", "vocab_size")
    return {name: tensor for name, tensor in script.state_dict().items() if name not in sizes}


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # whoever reads its tensors says what is wrong


def _beside(path: Path) -> tuple[bool | None, dict[str, Any]]:
    """What the configuration in the same folder says, transformers' config.json or open_clip_config.json:
    whether the activation is QuickGELU, and the preprocessing."""
    for name in ("config.json", "open_clip_config.json"):
        config = path.parent / name
        content = read_json(config) if config.is_file() else None
        if isinstance(content, dict):
            if isinstance(vision := content.get("vision_config"), dict):
                return bool(vision.get("hidden_act", "quick_gelu") == "quick_gelu"), {}
            if isinstance(model := content.get("model_cfg"), dict):
                own = content.get("preprocess_cfg")
                return bool(model.get("quick_gelu", False)), own if isinstance(own, dict) else {}
    return None, {}


def preprocessing(architecture: str, tag: str, checkpoint: ClipWeights) -> dict[str, Any]:
    """How photos are prepared for weights from a file: as beside the file, else as open_clip's tag of that name has
    it, else as all its tags of the architecture have it. Where they disagree, OpenAI's is taken, with a warning.

    Raises UnknownName for a tag that open_clip lacks.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag and tag not in tags:
        raise UnknownName.of(f"weights of {architecture} in open_clip", tag, tags)
    usual = asdict(PreprocessCfg())
    if checkpoint.preprocess:
        return dict(merge_preprocess_dict(usual, checkpoint.preprocess))
    known = [merge_preprocess_dict(usual, get_pretrained_cfg(architecture, one)) for one in ([tag] if tag else tags)]
    if any(one != known[0] for one in known):
        warnings.warn(
            f"{checkpoint.path} does not say how photos are prepared for it, and weights of {architecture} differ in "
            f"that: OpenAI's way is taken (name the tag, as in open_clip:{architecture}/{tags[-1]}, if it is another)",
            SgloraWarning,
            stacklevel=3,
        )
        return usual
    return dict(known[0]) if known else usual
