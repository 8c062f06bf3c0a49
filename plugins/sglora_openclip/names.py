"""Convert the tensors of a CLIP model in any file to open_clip's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sglora_cli.api import BadFile

WHOLE = {
    "logit_scale": "logit_scale",
    "logit_bias": "logit_bias",
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
}
TOWERS = {"vision_model": "visual.transformer", "text_model": "transformer"}
LAYERS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
TRANSPOSED = ("visual.proj", "text_projection")
_OUTER = re.compile(r"^(?:(?:model|clip|clip_model)\.)+")
"""The attributes in which training programs keep a CLIP model."""
_CONSTANTS = {"input_resolution", "context_length", "vocab_size", "attn_mask", "logit_bias"}
"""Tensors that some versions save, and that have no effect on embeddings."""


def own_name(name: str) -> str:
    """Remove the attributes of a training program from a tensor's name.

    >>> own_name("model.visual.proj"), own_name("visual.proj")
    ('visual.proj', 'visual.proj')
    """
    return _OUTER.sub("", name)


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a CLIP model of open_clip or transformers by open_clip's names.

    Raises BadFile for an unknown tensor of a CLIPModel, or for two tensors of one name.
    """
    own = {own_name(name): tensor for name, tensor in state.items()}
    if len(own) < len(state):
        raise BadFile("two tensors of the weights have the same name", "save the state_dict of a single model")
    transformers = any(name.startswith(tuple(f"{tower}." for tower in TOWERS)) for name in own)
    return _converted(own) if transformers else own


def matched(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with the tensors that a model has, where only such differ that have no effect on embeddings.

    own: the model's state.  Constants are removed or taken from the model, and a single number gets its shape.
    """
    if any(name.startswith("text.") for name in own) and not any(name.startswith("text.") for name in state):
        outside = ("visual.", "logit_")
        state = {name if name.startswith(outside) else f"text.{name}": tensor for name, tensor in state.items()}
    kept = {name: x for name, x in state.items() if name in own or name.rpartition(".")[2] not in _CONSTANTS}
    kept |= {name: x for name, x in own.items() if name not in kept and name in _CONSTANTS}
    return {
        name: x.reshape(own[name].shape) if name in own and x.numel() == own[name].numel() == 1 else x
        for name, x in kept.items()
    }


def _converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state of a transformers CLIPModel. Raises BadFile for an unknown tensor.

    transformers stores q, k and v separately and transposes projections. position_ids are the numbers 0, 1, 2 ...
    """
    renamed: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.endswith("position_ids"):
            continue
        layer = re.fullmatch(r"(vision_model|text_model)\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        stem, _, kind = name.rpartition(".")
        if layer:
            tower, number, part, kind = layer.groups()
            block = f"{TOWERS[tower]}.resblocks.{number}"
            if qkv := re.fullmatch(r"self_attn\.([qkv])_proj", part):
                packed.setdefault(f"{block}.attn.in_proj_{kind}", {})[qkv[1]] = tensor
                continue
            new = f"{block}.{LAYERS[part]}.{kind}" if part in LAYERS else ""
        elif name in WHOLE:
            new = WHOLE[name]
        else:
            new = f"{WHOLE[stem]}.{kind}" if stem in WHOLE else ""
        if not new:
            raise BadFile(
                f"{name!r} is not a tensor of a transformers CLIPModel",
                "use open_clip's files for SigLIP and other models",
            )
        renamed[new] = tensor.T if new in TRANSPOSED else tensor
    for name, parts in packed.items():
        if set(parts) != set("qkv"):
            raise BadFile(f"{name} lacks its {', '.join(sorted(set('qkv') - set(parts)))}")
        renamed[name] = torch.cat([parts[part] for part in "qkv"])
    return renamed
