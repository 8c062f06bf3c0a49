"""PEFT's folders: adapter_config.json and adapter_model.safetensors (https://github.com/huggingface/peft).

Its update is scaling * B A with scaling alpha / r, or alpha / sqrt(r) for rsLoRA; `rank_pattern` and
`alpha_pattern` change r and alpha of single modules. Names of tensors are
`base_model.model.<module>.lora_{A,B}.weight`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex
from torch import Tensor

from sglora_cli.adapter.file import PREFIX, AdapterFile, save_adapter
from sglora_cli.adapter.foreign import ForeignAdapter, checked_parts
from sglora_cli.adapter.torch_files import ADAPTER_LIMIT, check_size, load_pickle
from sglora_cli.errors import BadFile, Mismatch, UsageError
from sglora_cli.files.atomic import write_bytes
from sglora_cli.files.tensors import load_tensors
from sglora_cli.files.text import read_json, write_json
from sglora_cli.files.untrusted import inside
from sglora_cli.lora.algebra import Factors
from sglora_cli.lora.layout import Layout
from sglora_cli.plugin.contracts import Model

CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
FILES = {CONFIG, WEIGHTS, "README.md"}
"""What a folder of ours holds."""
_TENSOR = re.compile(r"(.+)\.lora_([AB])\.(?:default\.)?weight")
_CONFIG_LIMIT = 10**7
PATTERNS_LIMIT, PATTERN_SECONDS = 5000, 0.25
"""Entries of rank_pattern: AdaLoRA writes one a module. Time of one pattern on one name."""

# What makes an adapter more than an update B A on frozen weights: configuration key -> why.
_REFUSED = {
    "use_dora": "DoRA also rescales the weights",
    "modules_to_save": "whole modules are replaced",
    "lora_bias": "B has a bias of its own",
    "fan_in_fan_out": "the weights are stored transposed",
    "trainable_token_indices": "token embeddings are replaced",
    "layer_replication": "layers are repeated",
    "target_parameters": "parameters outside modules have updates",
    "use_qalora": "the inputs are pooled in groups",
    "use_bdlora": "the factors are block-diagonal",
    "alora_invocation_tokens": "the update is switched on by tokens",
    "arrow_config": "several adapters are routed",
    "kasa_config": "the base weights are changed",
    "monteclora_config": "the factors are sampled",
}
_CHANGES_THE_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
_REMEDY = "merge it in PEFT, or train a plain LoRA adapter"


# Reading


def read_folder(folder: Path) -> ForeignAdapter:
    """Read a PEFT folder. Raises BadFile if it is not a whole one, Mismatch for an adapter that is more than B A."""
    config = _checked_config(folder / CONFIG)
    safe, old = inside(folder, WEIGHTS), inside(folder, OLD_WEIGHTS)
    if not safe.exists() and not old.exists():
        raise BadFile(f"{folder} has no {WEIGHTS}", "fetch the adapter again")
    return _read_state(safe if safe.exists() else old, config)


def read_bare(path: Path, alpha: float | None) -> ForeignAdapter:
    """Read a PEFT state alone. No tensor holds its scaling: it comes from adapter_config.json beside it, or `alpha`."""
    source = path.parent / CONFIG
    if source.exists():
        config = _checked_config(source)
        if alpha is not None and alpha != config["lora_alpha"]:
            raise UsageError(f"{source} says lora_alpha = {config['lora_alpha']}, not {alpha:g}", "leave out --alpha")
        return _read_state(path, config)
    if alpha is None:
        raise BadFile(
            f"{path} has no {CONFIG} beside it, and its scaling is not in the file",
            "pass --alpha with the lora_alpha it was trained with",
        )
    return _read_state(path, {"lora_alpha": alpha})


def _read_state(path: Path, config: Mapping[str, Any]) -> ForeignAdapter:
    tensors, metadata = _tensors(path)
    raw: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _TENSOR.fullmatch(key.removeprefix(PREFIX))
        if "lora_magnitude_vector" in key:
            raise Mismatch(f"{path} has {key}: DoRA also rescales the weights", _REMEDY)
        if match is None:
            raise BadFile(f"{path} has a tensor that belongs to no LoRA update of a linear layer: {key}", _REMEDY)
        raw.setdefault(match[1], {})[match[2]] = tensor
    claims = _claims(config)
    pairs: dict[str, Factors] = {}
    for name, pair in sorted(raw.items()):
        if set(pair) != {"A", "B"}:
            raise BadFile(f"{path}: lora_{'B' if 'A' in pair else 'A'} of {name} is missing", "fetch the adapter again")
        if "target_modules" in config and not claims(name) and _complete(config):
            raise BadFile(f"{path} has an update of {name}, which {CONFIG} does not name", "PEFT would leave it out")
        pairs[name] = pair["B"], pair["A"]
    checked = checked_parts(pairs, str(path))
    scalings = {name: _scaling(config, name, b.shape[1], path) for name, (b, _) in checked.items()}
    one = len(set(scalings.values())) == 1 and len({b.shape[1] for b, _ in checked.values()}) == 1
    parts = {name: (b * scalings[name], a) for name, (b, a) in checked.items()}
    return ForeignAdapter(parts, "peft", next(iter(scalings.values())) if one else 1.0, metadata, claims)


def _tensors(path: Path) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    check_size(path, ADAPTER_LIMIT)
    if path.suffix != ".bin":
        return load_tensors(path)
    content = load_pickle(path, ADAPTER_LIMIT)
    if not isinstance(content, dict) or not all(isinstance(x, Tensor) for x in content.values()):
        raise BadFile(f"{path} is not a table of tensors")
    return content, {}


def _checked_config(path: Path) -> dict[str, Any]:
    """Read and check adapter_config.json.

    Raises BadFile for values of the wrong kind, Mismatch for a configuration that means more than B A.
    """
    config = read_json(path, limit=_CONFIG_LIMIT)
    if not isinstance(config, dict):
        raise BadFile(f"{path} is not a table")
    if config.get("peft_type") != "LORA":
        raise Mismatch(
            f"{path}: peft_type is {config.get('peft_type')!r}, not 'LORA'", "only LoRA adapters can be read"
        )
    for key, reason in _REFUSED.items():
        if config.get(key):
            raise Mismatch(f"{path}: {key} = {config[key]!r}: {reason}", _REMEDY)
    if config.get("bias", "none") != "none":
        raise Mismatch(f"{path}: bias = {config['bias']!r}: biases are trained too", _REMEDY)
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_THE_BASE):
        raise Mismatch(
            f"{path}: init_lora_weights = {start!r} changes the base weights",
            "save it with PEFT's path_initial_model_for_weight_conversion, which makes it a plain LoRA adapter",
        )
    _check_numbers(path, config)
    if not isinstance(config.get("target_modules"), str | list) or not config["target_modules"]:
        raise BadFile(f"{path}: target_modules is {config.get('target_modules')!r}", "name the modules it adapts")
    return config


def _check_numbers(path: Path, config: dict[str, Any]) -> None:
    config.setdefault("lora_alpha", 8)
    config.setdefault("r", 8)  # PEFT's own defaults
    for key, pattern, kind in (("r", "rank_pattern", int), ("lora_alpha", "alpha_pattern", (int, float))):
        table = config.get(pattern) or {}
        if not isinstance(table, dict):
            raise BadFile(f"{path}: {pattern} is {table!r}, not a table")
        for name, value in [(key, config[key]), *table.items()]:
            if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
                raise BadFile(f"{path}: {pattern + ', ' if name != key else ''}{name} = {value!r} is no {key}")
        if len(table) > PATTERNS_LIMIT:
            raise BadFile(f"{path}: {pattern} has {len(table)} entries, more than {PATTERNS_LIMIT}")
        for key in table:
            _compiled(key, f"{path}: {pattern}")


def _of_pattern(table: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the end of the name, from a dot on."""
    for key, value in (table or {}).items():
        if _matches(_compiled(key, CONFIG), name):
            return value
    return default


@lru_cache(maxsize=PATTERNS_LIMIT)
def _compiled(pattern: str, where: str, form: str = r"(.*\.)?({})$") -> regex.Pattern[str]:
    """PEFT's pattern for the end of a name, from a dot on. Raises BadFile."""
    try:
        return regex.compile(form.replace("{}", pattern))
    except (regex.error, OverflowError, RecursionError, ValueError) as error:
        raise BadFile(f"{where} has {pattern[:100]!r}, which is no pattern: {error}") from None


def _matches(pattern: regex.Pattern[str], name: str, whole: bool = False) -> bool:
    """Whether a name matches. Raises BadFile for a pattern that takes too long, as `(a+)+$` can."""
    try:
        return (pattern.fullmatch if whole else pattern.match)(name, timeout=PATTERN_SECONDS) is not None
    except TimeoutError:
        raise BadFile(
            f"{CONFIG} has a pattern that takes too long: {pattern.pattern[:100]!r}", "name the modules in a list"
        ) from None


def _scaling(config: Mapping[str, Any], name: str, rank: int, path: Path) -> float:
    stated = _of_pattern(config.get("rank_pattern"), name, config.get("r", rank))
    if stated != rank:
        raise BadFile(f"{path}: {name} has rank {rank}, {CONFIG} says {stated}", "the two files are not of one adapter")
    alpha = _of_pattern(config.get("alpha_pattern"), name, config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _complete(config: Mapping[str, Any]) -> bool:
    """Whether `target_modules` alone says which modules have an update."""
    return config.get("layers_to_transform") is None and not config.get("exclude_modules")


def _claims(config: Mapping[str, Any]) -> Callable[[str], bool]:
    targets = config.get("target_modules")
    if targets is None or not _complete(config):
        return lambda name: False
    if isinstance(targets, str):
        pattern = _compiled(targets, f"{CONFIG}: target_modules", "{}")
        return lambda name: _matches(pattern, name, whole=True)
    names = [str(target) for target in targets]
    return lambda name: any(name == t or name.endswith(f".{t}") for t in names)


# Writing


def target_modules(names: Sequence[str]) -> str | list[str]:
    r"""One pattern that matches exactly these modules, or the list of names where no pattern is simple.

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
    """The layout with names that lack their first part: transformers 5's CLIPVisionModel has no `vision_model.`.

    Raises Mismatch unless all sites are in one tower.
    """
    towers = {site.name.split(".")[0] for site in layout.sites}
    if len(towers) != 1 or any("." not in site.name for site in layout.sites):
        raise Mismatch("the backbone's sites are not in one tower: there is no flat form", "use --format peft")
    return replace(layout, sites=tuple(replace(s, name=s.name.split(".", 1)[1]) for s in layout.sites))


def write(folder: Path, adapter: AdapterFile, model: Model) -> None:
    """Write a complete folder, whose numbers are those of the adapter bit for bit."""
    _write(folder, adapter.layout, adapter, model, "CLIPVisionModelWithProjection")


def write_flat(folder: Path, adapter: AdapterFile, model: Model) -> None:
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


def adapter_card(metadata: Mapping[str, Any], base: str, used_with: str) -> str:
    """The README.md of a PEFT folder; `used_with` is the class of transformers it loads into."""
    name = metadata.get("description", "an unknown task")
    lines = [
        "---",
        "library_name: peft",
        "tags: [lora, sglora]",
        "---",
        f"# LoRA adapter for {json.dumps(name, ensure_ascii=False)}",
        "",
        "An update of the image encoder; the text encoder stays as it is.",
        "",
        *(f"* {key}: {metadata[key]}" for key in ("backbone", "fingerprint", "pack", "generator") if key in metadata),
        "",
        "```python",
        "from peft import PeftModel",
        f"from transformers import {used_with}",
        "",
        f"model = PeftModel.from_pretrained({used_with}.from_pretrained({base}), FOLDER)",
        "```",
    ]
    return "\n".join(lines) + "\n"
