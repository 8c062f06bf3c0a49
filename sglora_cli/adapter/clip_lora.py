"""CLIP-LoRA's file format (https://github.com/MaxZanella/CLIP-LoRA): numbered layers, scaling alpha / sqrt(r).

{'weights': {'layer_0': {'q_proj': {'w_lora_A': (r, in), 'w_lora_B': (out, r)}, ...}, ...},
 'metadata': {'r', 'alpha', 'encoder', 'params', 'position'}}

`layer_n` is the n-th *adapted* attention block, those of the text encoder first. `position` determines which blocks are
adapted. CLIP-LoRA's loader requires the metadata to equal its command line.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.adapter.base import Base
from sglora_cli.adapter.file import AdapterFile
from sglora_cli.adapter.foreign import ForeignAdapter, checked_parts
from sglora_cli.adapter.torch_files import ADAPTER_LIMIT, check_size
from sglora_cli.errors import BadFile, Mismatch
from sglora_cli.files.atomic import write_bytes
from sglora_cli.lora.algebra import Factors
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.sites import has_projection

DEPTH = 12
"""The number of blocks that position `all` covers. CLIP-LoRA's loader ignores the last blocks of a deeper tower."""

POSITIONS: Mapping[str, Sequence[int]] = {
    "top": [11],
    "top1": [11],
    "top2": [10, 11],
    "top3": [9, 10, 11],
    "bottom": [0, 1, 2, 3],
    "mid": [4, 5, 6, 7],
    "up": [8, 9, 10, 11],
    "half-up": [6, 7, 8, 9, 10, 11],
    "half-bottom": [0, 1, 2, 3, 4, 5],
    "all": range(DEPTH),
}
_TOWERS = {"text": ["text_model"], "vision": ["vision_model"], "both": ["text_model", "vision_model"]}
_NAME = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv]_proj)")
_OURS = ("backbone", "fingerprint")
"""Additional metadata of files that sglora writes. CLIP-LoRA's loader ignores keys that it does not know."""
_SITE = "{}.encoder.layers.{}.self_attn.{}"


def write(path: Path, adapter: AdapterFile, model: Model) -> None:
    """Write a file as if trained with `--r RANK --alpha 1 --encoder vision --params q k v --position all`.

    Raises Mismatch unless the sites are exactly q, k and v of all blocks of a CLIP with at most 12 blocks.
    """
    layout = adapter.layout
    if has_projection(model, layout):
        raise Mismatch(
            "the adapter has an update of the last projection, but CLIP-LoRA's format supports only q, k and v",
            "use --format peft",
        )
    matches = [_NAME.fullmatch(site.name) for site in layout.sites]
    expected = [_SITE.format("vision_model", i, f"{x}_proj") for i in range(len(matches) // 3) for x in "qkv"]
    if sorted(site.name for site in layout.sites) != sorted(expected):
        raise Mismatch("CLIP-LoRA's format supports only q, k and v of all blocks of a CLIP", "use --format peft")
    if len(expected) > 3 * DEPTH:
        raise Mismatch(
            f"CLIP-LoRA's loader does not support the {len(expected) // 3} blocks of this backbone", "use --format peft"
        )
    weights: dict[str, dict[str, dict[str, Tensor]]] = {f"layer_{i}": {} for i in range(len(expected) // 3)}
    for match, (b_OR, a_RI) in zip(matches, layout.split(adapter.flat_P).values(), strict=True):
        assert match is not None  # the names were compared above
        scaled = (b_OR.double() * layout.scaling * math.sqrt(layout.rank)).float()
        weights[f"layer_{match[1]}"][match[2]] = {"w_lora_A": a_RI.clone(), "w_lora_B": scaled}
    metadata = {"r": layout.rank, "alpha": 1, "encoder": "vision", "params": ["q", "k", "v"], "position": "all"}
    metadata |= {key: adapter.metadata[key] for key in _OURS if key in adapter.metadata}
    buffer = io.BytesIO()
    torch.save({"weights": weights, "metadata": metadata}, buffer)
    write_bytes(path, buffer.getvalue())


def is_clip_lora(content: Any) -> bool:
    return isinstance(content, dict) and {"weights", "metadata"} <= set(content)


def read(path: Path, content: Mapping[str, Any]) -> ForeignAdapter:
    """Read a CLIP-LoRA file, given its loaded content.

    Raises BadFile if it is incomplete or invalid, Mismatch for updates outside q, k and v, or other content.
    """
    check_size(path, ADAPTER_LIMIT)
    if more := set(content) - {"weights", "metadata"}:
        raise Mismatch(
            f"{path} has {min(map(str, more))!r} in addition to the weights of CLIP-LoRA, which would be lost",
            "save only the adapter",
        )
    weights, metadata = content["weights"], content["metadata"]
    rank, scaling, params = _settings(path, metadata)
    blocks = _blocks(path, weights, metadata)
    parts: dict[str, Factors] = {}
    for key, (tower, block) in blocks.items():
        layer = weights[key]
        if not isinstance(layer, dict) or set(layer) != {f"{x}_proj" for x in params}:
            names = sorted(map(str, layer)) if isinstance(layer, dict) else type(layer).__name__
            raise BadFile(
                f"{path}: {key} has {names}, but its metadata lists {params}", "the file is incomplete; fetch it again"
            )
        for name, factors in layer.items():
            b_OR, a_RI = _factors(factors, f"{path}: {key}, {name}")
            if b_OR.ndim != 2 or a_RI.ndim != 2 or b_OR.shape[1] != rank or len(a_RI) != rank:
                raise BadFile(
                    f"{path}: {key}, {name} has shapes {tuple(b_OR.shape)} and {tuple(a_RI.shape)}, "
                    f"but its metadata has r = {rank}"
                )
            parts[_SITE.format(tower, block, name)] = b_OR, a_RI
    checked = checked_parts(parts, str(path))
    scaled = {n: (b_OR * scaling, a_RI) for n, (b_OR, a_RI) in checked.items()}
    encoder = metadata["encoder"] if metadata["encoder"] == "text" else ""
    stated = provenance(path, content)
    return ForeignAdapter(scaled, "clip-lora", scaling, stated, Base(encoder=encoder, where=str(path)))


def provenance(path: Path, content: Mapping[str, Any]) -> dict[str, str]:
    """Return the backbone that a file of sglora records. Raises BadFile for values that are not strings."""
    metadata = content["metadata"] if isinstance(content["metadata"], dict) else {}
    stated = {key: metadata[key] for key in _OURS if key in metadata}
    for key, value in stated.items():
        if not isinstance(value, str):
            raise BadFile(f"{path}: its metadata has {key} = {value!r:.100}, which is not a string")
    return stated


def _settings(path: Path, metadata: Any) -> tuple[int, float, list[str]]:
    """Check the metadata and return (r, alpha / sqrt(r), params)."""
    if not isinstance(metadata, dict):
        raise BadFile(f"{path}: its metadata is not a dictionary")
    rank, alpha, params = metadata.get("r"), metadata.get("alpha"), metadata.get("params")
    if not isinstance(rank, int) or rank < 1:
        raise BadFile(f"{path}: its metadata has an invalid r = {rank!r}")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha) or alpha == 0:
        raise BadFile(f"{path}: its metadata has an invalid alpha = {alpha!r}")
    if not isinstance(params, list) or not params or any(x not in [*"qkvo"] for x in params):
        raise BadFile(f"{path}: its metadata has an invalid params = {params!r}")
    if "o" in params:
        raise Mismatch(
            f"{path} also adapts the output projection (params {params}), which no backbone of sglora supports",
            "train it with --params q k v",
        )
    for name, known in (("encoder", _TOWERS), ("position", POSITIONS)):
        if metadata.get(name) not in list(known):  # a list, as the value may not be hashable
            raise BadFile(f"{path}: its metadata has {name} = {metadata.get(name)!r}, not one of {', '.join(known)}")
    return rank, alpha / math.sqrt(rank), params


def _blocks(path: Path, weights: Any, metadata: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Map each `layer_n` to (tower, block)."""
    if not isinstance(weights, dict) or set(weights) != {f"layer_{n}" for n in range(len(weights))}:
        raise BadFile(f"{path}: its weights are not layer_0, layer_1 ...", "the file is incomplete; fetch it again")
    indices, towers = POSITIONS[metadata["position"]], _TOWERS[metadata["encoder"]]
    # The file does not record the depth of a vision tower. The text towers of all CLIPs of CLIP-LoRA have 12 blocks.
    visual = indices
    if metadata["position"] == "all" and towers[-1] == "vision_model":
        visual = range(len(weights) - DEPTH * (len(towers) - 1))
    blocks = [(tower, i) for tower in towers for i in (visual if tower == "vision_model" else indices)]
    if len(blocks) != len(weights):
        raise BadFile(
            f"{path} has {len(weights)} layers, but its metadata (encoder {metadata['encoder']}, position "
            f"{metadata['position']}) requires {len(blocks)}",
            "the file is incomplete; fetch it again",
        )
    return {f"layer_{n}": block for n, block in enumerate(blocks)}


def _factors(factors: Any, where: str) -> Factors:
    if not isinstance(factors, dict) or set(factors) != {"w_lora_A", "w_lora_B"}:
        raise BadFile(f"{where} is not a pair w_lora_A, w_lora_B")
    if not all(isinstance(x, Tensor) for x in factors.values()):
        raise BadFile(f"{where} has a value that is not a tensor")
    return factors["w_lora_B"], factors["w_lora_A"]
