"""Read and write PEFT folders: adapter_config.json and adapter_model.safetensors (https://github.com/huggingface/peft).

The update is scaling * B A with scaling alpha / r, or alpha / sqrt(r) for rsLoRA. `rank_pattern` and `alpha_pattern`
change r and alpha of single modules. Tensors are named `base_model.model.<module>.lora_{A,B}.weight`. The configuration
and the weights must have the same modules.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sglora_cli.adapter.file import PREFIX, AdapterFile, save_adapter
from sglora_cli.adapter.foreign import ForeignAdapter, checked_parts
from sglora_cli.adapter.peft_config import CONFIG, TRAIN, PeftConfig, read_config
from sglora_cli.adapter.state_dict import pickled_tensors, plain_names
from sglora_cli.adapter.torch_files import ADAPTER_LIMIT, check_size, is_pickle, load_pickle
from sglora_cli.errors import BadFile, Mismatch, UsageError
from sglora_cli.files.atomic import write_bytes
from sglora_cli.files.escape import markdown_text, shell_word
from sglora_cli.files.tensors import load_tensors
from sglora_cli.files.text import write_json
from sglora_cli.files.untrusted import inside
from sglora_cli.lora.algebra import Factors
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.contracts import Model
from sglora_cli.plugin.sites import has_projection

WEIGHTS, OLD_WEIGHTS = "adapter_model.safetensors", "adapter_model.bin"
FILES = {CONFIG, WEIGHTS, "README.md"}
"""The files of a folder that sglora writes."""
_TENSOR = re.compile(r"(.+)\.lora_([AB])\.(?:(?P<adapter>[^.]+)\.)?weight")
"""A state_dict of a PeftModel has the name of the adapter before `weight`, `default` unless the user chose one."""


# Reading


def read_folder(folder: Path) -> ForeignAdapter:
    """Read a PEFT folder. Raises BadFile if it is incomplete, Mismatch if the adapter is more than an update B A."""
    config = read_config(folder / CONFIG)
    safe, old = inside(folder, WEIGHTS), inside(folder, OLD_WEIGHTS)
    if not safe.exists() and not old.exists():
        raise BadFile(f"{folder} has no {WEIGHTS}", "fetch the adapter again")
    return _configured(safe if safe.exists() else old, config)


def read_bare(path: Path, alpha: float | None, content: Any = None) -> ForeignAdapter:
    """Read a PEFT state file. Its scaling comes from adapter_config.json in the same folder, or from `alpha`.

    content: the content of a PyTorch file, if it is already loaded.
    """
    source = path.parent / CONFIG
    if source.exists():
        config = read_config(source)
        if alpha is not None and alpha != (stated := config.values["lora_alpha"]):
            raise UsageError(f"{source} has lora_alpha = {stated}, not {alpha:g}", "omit --alpha")
        return _configured(path, config, content)
    if alpha is None:
        raise BadFile(
            f"{path} has no {CONFIG} next to it, and the file does not contain its scaling",
            f"pass the lora_alpha of its training: sglora import {shell_word(path)} --alpha ALPHA -o FILE",
        )
    pairs, metadata = _pairs(path, content)
    return _adapter(pairs, {name: alpha / b.shape[1] for name, (b, _) in pairs.items()}, metadata)


def _configured(path: Path, config: PeftConfig, content: Any = None) -> ForeignAdapter:
    """Combine a state with its configuration. Raises BadFile if their modules differ."""
    pairs, metadata = _pairs(path, content)
    for name in pairs:
        if not config.target(name):
            raise BadFile(f"{path} has an update of {name}, which {CONFIG} does not list", "PEFT would ignore it")
    scalings = {name: config.scaling(name, b.shape[1], path) for name, (b, _) in pairs.items()}
    idle = config.idle_patterns(pairs)
    return replace(
        _adapter(pairs, scalings, metadata),
        base=config.base,
        claims=lambda name: config.claim(name, idle),
        unmet=tuple(config.without_update(pairs, idle)),
    )


def _adapter(
    pairs: Mapping[str, Factors], scalings: Mapping[str, float], metadata: Mapping[str, Any]
) -> ForeignAdapter:
    one = len(set(scalings.values())) == 1 and len({b.shape[1] for b, _ in pairs.values()}) == 1
    parts = {name: (b * scalings[name], a) for name, (b, a) in pairs.items()}
    return ForeignAdapter(parts, "peft", next(iter(scalings.values())) if one else 1.0, metadata)


def _pairs(path: Path, content: Any) -> tuple[dict[str, Factors], dict[str, Any]]:
    """Return the factors of each module by name, and the file's metadata."""
    tensors, metadata = _tensors(path, content)
    raw: dict[str, dict[str, Tensor]] = {}
    adapters: set[str] = set()
    for key, tensor in tensors.items():
        match = _TENSOR.fullmatch(key.removeprefix(PREFIX))
        if "lora_magnitude_vector" in key:
            raise Mismatch(f"{path} has {key}, but DoRA also rescales the weights", TRAIN)
        if match is None:
            whole = ".base_layer." in key
            raise BadFile(
                f"{path} has a tensor that is not part of a LoRA update of a linear layer: {key}",
                "save only the adapter, with PEFT's model.save_pretrained(FOLDER)" if whole else TRAIN,
            )
        adapters.add(match["adapter"] or "default")
        if len(adapters) > 1:
            one, other = sorted(adapters)[:2]
            raise BadFile(
                f"{path} has several adapters, such as {one!r} and {other!r}",
                f"save one of them, with PEFT's model.save_pretrained(FOLDER, selected_adapters=[{one!r}])",
            )
        pair = raw.setdefault(match[1], {})
        if match[2] in pair:
            raise BadFile(f"{path} has two tensors for lora_{match[2]} of {match[1]}", "save a single adapter")
        pair[match[2]] = tensor
    for name, pair in raw.items():
        if set(pair) != {"A", "B"}:
            raise BadFile(f"{path}: lora_{'B' if 'A' in pair else 'A'} of {name} is missing", "fetch the adapter again")
    return checked_parts({name: (raw[name]["B"], raw[name]["A"]) for name in sorted(raw)}, str(path)), metadata


def _tensors(path: Path, content: Any) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    check_size(path, ADAPTER_LIMIT)
    if content is None and not is_pickle(path):
        tensors, metadata = load_tensors(path)
        return plain_names(path, tensors), metadata
    return pickled_tensors(path, load_pickle(path, ADAPTER_LIMIT) if content is None else content), {}


# Writing


def target_modules(names: Sequence[str]) -> str | list[str]:
    r"""Return a pattern that matches exactly these modules, or the list of names if there is no simple pattern.

    >>> target_modules(["tower.0.q", "tower.0.k", "tower.1.q", "tower.1.k"])
    'tower\\.(0|1)\\.(q|k)'
    """
    split = [name.split(".") for name in names]
    if len({len(parts) for parts in split}) != 1:
        return list(names)
    columns = [list(dict.fromkeys(parts)) for parts in zip(*split, strict=True)]
    if math.prod(map(len, columns)) != len(names):
        return list(names)
    return r"\.".join(
        re.escape(column[0]) if len(column) == 1 else f"({'|'.join(map(re.escape, column))})" for column in columns
    )


def flat(layout: Layout) -> Layout:
    """Remove the first part of the sites' names, as transformers 5's CLIPVisionModel has no `vision_model.`.

    Raises Mismatch unless all sites are in one tower.
    """
    towers = {site.name.split(".")[0] for site in layout.sites}
    if len(towers) != 1 or any("." not in site.name for site in layout.sites):
        raise Mismatch("the backbone's sites are not in one tower, so there is no flat form", "use --format peft")
    return replace(layout, sites=tuple(replace(s, name=s.name.split(".", 1)[1]) for s in layout.sites))


def write(folder: Path, adapter: AdapterFile, model: Model) -> None:
    """Write a complete folder with the adapter's parameters, bit for bit."""
    _write(folder, adapter.layout, adapter, model, "CLIPVisionModelWithProjection")


def write_flat(folder: Path, adapter: AdapterFile, model: Model) -> None:
    """Write a folder like `write`, for a vision tower alone. Raises Mismatch for an update of the last projection."""
    if has_projection(model, adapter.layout):
        raise Mismatch(
            "the adapter has an update of the last projection, which transformers' CLIPVisionModel does not have",
            "use --format peft",
        )
    _write(folder, flat(adapter.layout), adapter, model, "CLIPVisionModel")


def _write(folder: Path, layout: Layout, adapter: AdapterFile, model: Model, used_with: str) -> None:
    base = model.hub_name or None
    alpha = int(layout.alpha) if layout.alpha == int(layout.alpha) else layout.alpha
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": layout.rank,
        "lora_alpha": alpha,
        "target_modules": target_modules([site.name for site in layout.sites]),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }
    save_adapter(folder / WEIGHTS, layout, adapter.flat_P, adapter.metadata)
    write_json(folder / CONFIG, config)
    write_bytes(
        folder / "README.md", adapter_card(adapter.metadata, json.dumps(base or "the base model"), used_with).encode()
    )


_ON_CARD = ("backbone", "fingerprint", "pack", "generator")


def adapter_card(metadata: Mapping[str, Any], base: str, used_with: str) -> str:
    """Return the README.md of a PEFT folder. used_with: the transformers class that loads it."""
    name = metadata.get("description", "an unknown task")
    lines = [
        "---",
        "library_name: peft",
        "tags: [lora, sglora]",
        "---",
        f'# LoRA adapter for "{markdown_text(str(name))}"',
        "",
        "This adapter updates the image encoder. The text encoder does not change.",
        "",
        *(f"* {key}: {markdown_text(str(metadata[key]))}" for key in _ON_CARD if key in metadata),
        "",
        "```python",
        "from peft import PeftModel",
        f"from transformers import {used_with}",
        "",
        f"model = PeftModel.from_pretrained({used_with}.from_pretrained({base}), FOLDER)",
        "```",
    ]
    return "\n".join(lines) + "\n"
