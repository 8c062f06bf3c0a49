"""State dicts in files of any program: the tensors of a module by name, without the names that wrappers add."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sglora_cli.errors import BadFile

FOLDER_FILES = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin", "pytorch_model.bin")
"""The names of a complete checkpoint in a folder of open_clip or transformers, the preferred first."""
WRAPPER = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\\?\.")
"""Parts of names that torch.compile, FSDP and activation checkpointing add. In a pattern, the dot may be escaped."""
_INSIDE = ("state_dict", "model_state_dict", "model")
"""Keys of training programs for the state dict in a file that also has an optimiser or an epoch."""

_OTHER_NAMES = (
    (re.compile(r"\.lora_(down|up)\.|\.(hada_w[12]_[ab]|lokr_w[12])"), "kohya's sd-scripts"),
    (re.compile(r"[._]lora(_linear_layer)?\.(down|up)\."), "older versions of diffusers"),
    (re.compile(r"\.lora_[AB]$"), "loralib"),
)


def plain_name(name: str) -> str:
    """Remove the parts of a tensor's name that wrappers add.

    >>> plain_name("module.visual._orig_mod.proj"), plain_name("_orig_mod.module.visual.proj")
    ('visual.proj', 'visual.proj')
    """
    return WRAPPER.sub("", name).removeprefix("module.")


def plain_names(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by their plain names. Raises BadFile if two have the same."""
    plain = {plain_name(name): tensor for name, tensor in state.items()}
    if len(plain) < len(state):
        double = next(name for name in state if plain_name(name) != name and plain_name(name) in state)
        raise BadFile(f"{path} has two tensors for {plain_name(double)}", "save a single state_dict")
    return plain


def pickled_tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the tensors of a PyTorch file by their plain names, given its content.

    A state dict inside a training program's checkpoint is found. Raises BadFile if there is none.
    """
    if isinstance(content, dict):
        content = next((content[key] for key in _INSIDE if isinstance(content.get(key), dict)), content)
    named = isinstance(content, dict) and content and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(x, Tensor) for x in content.values()):
        raise BadFile(
            f"{path} is neither an adapter nor a checkpoint of named tensors",
            "save the state_dict of the model, or the adapter with PEFT's save_pretrained",
        )
    return plain_names(path, content)


def check_names(path: Path, names: Iterable[str]) -> None:
    """Raise BadFile for the adapter of a program whose names and scaling are not supported."""
    for name in names:
        for pattern, program in _OTHER_NAMES:
            if pattern.search(name):
                raise BadFile(
                    f"{path} has the tensor names of {program}, such as {name}, which are not supported",
                    "rename its factors to MODULE.lora_A.weight (down) and MODULE.lora_B.weight (up), remove its "
                    "alphas, then run: sglora import FILE --alpha ALPHA -o NEW.safetensors",
                )
