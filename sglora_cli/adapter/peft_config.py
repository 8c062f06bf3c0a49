"""Read PEFT's adapter_config.json: which modules have an update, how it is scaled, and the base it was trained on.

Settings that make an adapter more than an update B A on frozen weights are refused, so that none is silently ignored.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sglora_cli.adapter.base import Base
from sglora_cli.adapter.patterns import WHOLE, Patterns, ends
from sglora_cli.adapter.state_dict import WRAPPER
from sglora_cli.errors import BadFile, Mismatch, SgloraWarning
from sglora_cli.files.text import read_json

CONFIG = "adapter_config.json"
TRAIN = "train a plain LoRA adapter, of q, k and v only"
MERGE = (
    "merge it with PEFT's model.merge_and_unload().save_pretrained(FOLDER), then run: "
    "sglora import FOLDER -o NEW.safetensors --weights BASE"
)
"""For adapters that change no more than q, k and v by a low-rank update once they are merged."""
PATTERNS_LIMIT = 5000
"""The most entries of a table or list. AdaLoRA writes one per module."""
_CONFIG_LIMIT, _TEXT_LIMIT = 10**7, 1000
"""Bytes of the file, and characters of the name of a model or class."""

# Keys that make an adapter more than an update B A on frozen weights, the reasons, and what helps.
_REFUSED = {
    "use_dora": ("DoRA also rescales the weights", TRAIN),
    "modules_to_save": ("complete modules are replaced", TRAIN),
    "lora_bias": ("B has its own bias", TRAIN),
    "fan_in_fan_out": ("the weights are stored transposed", MERGE),
    "trainable_token_indices": ("token embeddings are replaced", TRAIN),
    "layer_replication": ("layers are repeated", TRAIN),
    "target_parameters": ("parameters outside modules have updates", MERGE),
    "use_qalora": ("the inputs are pooled in groups", TRAIN),
    "use_bdlora": ("the factors are block-diagonal", MERGE),
    "alora_invocation_tokens": ("the update is switched on by tokens", TRAIN),
    "arrow_config": ("several adapters are routed", TRAIN),
    "kasa_config": ("the base weights are changed", TRAIN),
    "monteclora_config": ("the factors are sampled", TRAIN),
}
_READ = {"peft_type", "base_model_name_or_path", "auto_mapping", "revision", "task_type", "bias", "init_lora_weights"}
_READ |= {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules"}
_READ |= {"layers_to_transform", "layers_pattern"}
_FOR_TRAINING = {"inference_mode", "lora_dropout", "peft_version", "megatron_config", "megatron_core", "loftq_config"}
_FOR_TRAINING |= {"eva_config", "corda_config", "lora_ga_config", "velora_config", "qalora_group_size"}
_FOR_TRAINING |= {"ensure_weight_tying", "runtime_config"}
_NAMING = ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern")
_STARTS = ("gaussian", "eva", "orthogonal", "mica")
"""Values of init_lora_weights that do not change the base weights."""
_CHANGES_THE_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")


@dataclass
class PeftConfig:
    """A checked configuration. `values` includes PEFT's defaults for r and lora_alpha."""

    path: Path
    values: Mapping[str, Any]
    patterns: Patterns

    @cached_property
    def _targets(self) -> frozenset[str]:
        return frozenset(self.values["target_modules"])

    @cached_property
    def _exclusions(self) -> frozenset[str]:
        return frozenset(self.values.get("exclude_modules") or ())

    @property
    def base(self) -> Base:
        mapping, revision = self.values.get("auto_mapping") or {}, self.values.get("revision")
        name = self.values.get("base_model_name_or_path") or ""
        return Base(
            name=f"{name}@{revision}" if name and revision and revision != "main" else name,
            model_class=mapping.get("base_model_class") or "",
            library=mapping.get("parent_library") or "",
            task=self.values.get("task_type") or "",
            where=str(self.path),
        )

    def scaling(self, name: str, rank: int, file: Path) -> float:
        """Return the factor on B A of a module. Raises BadFile if the configuration has another rank for it."""
        key = self._pattern_of("rank_pattern", name)
        stated = self.values["r"] if key is None else self.values["rank_pattern"][key]
        if stated != rank:
            raise BadFile(
                f"{file}: {name} has rank {rank}, but {CONFIG} has {stated}", "use the two files of the same adapter"
            )
        key = self._pattern_of("alpha_pattern", name)
        alpha = self.values["lora_alpha"] if key is None else self.values["alpha_pattern"][key]
        return float(alpha / math.sqrt(rank) if self.values.get("use_rslora") else alpha / rank)

    def target(self, name: str) -> str:
        """Return the entry by which a module has an update, or "" if there is none, by PEFT's rule."""
        if self._excluded(name):
            return ""
        targets = self.values["target_modules"]
        if targets == "all-linear":
            return "target_modules all-linear"
        if isinstance(targets, str):
            return "target_modules" if self.patterns.matches(targets, name, "target_modules", WHOLE) else ""
        found = next((end for end in ends(name) if end in self._targets), None)
        if found in (None, name) or not (layers := _listed(self.values.get("layers_to_transform"))):
            return "" if found is None else f"target_modules {found}"
        number = self._layer(name)
        return f"target_modules {found}, layers_to_transform {_shown(layers)}" if number in layers else ""

    def claim(self, name: str, idle: Collection[str]) -> str:
        """Return the same as `target`, or the entry of a pattern table that matches the module.

        idle: the entries that match no update of the file. Entries that match one need not match others.
        """
        if (target := self.target(name)) or self._excluded(name) or self._layer_left_out(name):
            return target
        for table in ("rank_pattern", "alpha_pattern"):
            for key in self.values.get(table) or {}:
                if key in idle and self.patterns.matches(key, name, table):
                    return f"{table} {key}"
        return ""

    def idle_patterns(self, names: Collection[str]) -> set[str]:
        """Return the entries of rank_pattern and alpha_pattern that match none of these modules."""
        keys = {key: table for table in ("rank_pattern", "alpha_pattern") for key in self.values.get(table) or {}}
        return {key for key, table in keys.items() if not any(self.patterns.matches(key, n, table) for n in names)}

    def without_update(self, names: Collection[str], idle: Collection[str]) -> list[str]:
        """Describe the entries of the configuration that match none of these modules. idle: as for `claim`."""
        targets = self.values["target_modules"]
        met = {end for name in names for end in ends(name)}
        listed = targets if isinstance(targets, list) else []
        unmet = [f"{target!r} (target_modules)" for target in listed if target not in met]
        if layers := _listed(self.values.get("layers_to_transform")):
            there = set(map(self._layer, names))
            unmet += [f"layer {layer} (layers_to_transform)" for layer in layers if layer not in there]
        return unmet + [f"{key!r} (a pattern)" for key in sorted(idle)]

    def _excluded(self, name: str) -> bool:
        excluded = self.values.get("exclude_modules")
        if isinstance(excluded, str):
            return self.patterns.matches(excluded, name, "exclude_modules", WHOLE)
        return any(end in self._exclusions for end in ends(name))

    def _layer_left_out(self, name: str) -> bool:
        layers = _listed(self.values.get("layers_to_transform"))
        return bool(layers) and self._layer(name) not in layers

    def _layer(self, name: str) -> int | None:
        """Return the number of a module's layer, the first number after a part that matches layers_pattern."""
        patterns = _listed(self.values.get("layers_pattern")) or [r"[^.]*"]
        start = r"(?:^|.*?\.)" if self.values.get("layers_pattern") else r".*?\."
        for pattern in patterns:
            form = start + r"{}\.(?P<layer>\d{1,9})\..*"
            if match := self.patterns.match(pattern, name, "layers_pattern", form):
                return int(match["layer"])
        return None

    def _pattern_of(self, table: str, name: str) -> str | None:
        """Return the first entry that matches the end of the name after a dot, by PEFT's rule."""
        entries = self.values.get(table) or {}
        return next((key for key in entries if self.patterns.matches(key, name, table)), None)


def read_config(path: Path) -> PeftConfig:
    """Read and check adapter_config.json.

    Raises BadFile for values of the wrong type, Mismatch for a configuration of more than an update B A.
    """
    config = read_json(path, limit=_CONFIG_LIMIT)
    if not isinstance(config, dict):
        raise BadFile(f"{path} is not a JSON object")
    if config.get("peft_type") != "LORA":
        raise Mismatch(f"{path}: peft_type is {config.get('peft_type')!r}, not 'LORA'", "use a LoRA adapter")
    for key, (reason, remedy) in _REFUSED.items():
        if config.get(key):
            raise Mismatch(f"{path}: {key} = {config[key]!r} is not supported, because {reason}", remedy)
    if config.get("bias", "none") != "none":
        raise Mismatch(f"{path}: bias = {config['bias']!r} is not supported, because biases are also trained", TRAIN)
    _check_start(path, config.get("init_lora_weights", True))
    patterns = Patterns(str(path))
    _check_numbers(path, config, patterns)
    _check_names(path, config)
    config |= {key: _without_wrappers(config[key]) for key in _NAMING if config.get(key)}
    unknown = sorted(key for key, value in config.items() if value and key not in {*_READ, *_FOR_TRAINING, *_REFUSED})
    if unknown:
        warnings.warn(
            f"{path}: ignoring unknown settings ({_shown(unknown)}), so any effect on the update is lost",
            SgloraWarning,
            stacklevel=2,
        )
    return PeftConfig(path, config, patterns)


def _without_wrappers(names: Any) -> Any:
    """Return module names or patterns, one or several, without the parts that torch.compile and other wrappers add."""
    if isinstance(names, str):
        return WRAPPER.sub("", names)
    if isinstance(names, dict):
        return {WRAPPER.sub("", name): value for name, value in names.items()}
    return [WRAPPER.sub("", name) for name in names]


def _check_start(path: Path, start: Any) -> None:
    if not isinstance(start, str) or start.lower() in _STARTS:
        return
    if start.lower().startswith(_CHANGES_THE_BASE):
        raise Mismatch(
            f"{path}: init_lora_weights = {start!r} changes the base weights",
            "save it with PEFT's path_initial_model_for_weight_conversion, which converts it to a plain LoRA adapter",
        )
    raise Mismatch(f"{path}: init_lora_weights = {start!r} is unknown and may change the base weights", TRAIN)


def _check_numbers(path: Path, config: dict[str, Any], patterns: Patterns) -> None:
    config.setdefault("lora_alpha", 8)
    config.setdefault("r", 8)  # PEFT's defaults
    for key, pattern, kind in (("r", "rank_pattern", int), ("lora_alpha", "alpha_pattern", (int, float))):
        table = config.get(pattern) or {}
        if not isinstance(table, dict):
            raise BadFile(f"{path}: {pattern} is {table!r}, not a JSON object")
        for name, value in [(key, config[key]), *table.items()]:
            if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
                raise BadFile(f"{path}: {pattern + ', ' if name != key else ''}{name} = {value!r} is not a valid {key}")
        if len(table) > PATTERNS_LIMIT:
            raise BadFile(f"{path}: {pattern} has {len(table)} entries, the limit is {PATTERNS_LIMIT}")
        for name in table:
            patterns.check(name, pattern)
    if not isinstance(rslora := config.get("use_rslora"), bool | None):
        raise BadFile(f"{path}: use_rslora must be true or false, got {rslora!r}")


def _check_names(path: Path, config: dict[str, Any]) -> None:
    targets = config.get("target_modules")
    if not isinstance(targets, str | list) or not targets:
        raise BadFile(f"{path}: target_modules is {targets!r}", "list the adapted modules")
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        names = _listed(config.get(key))
        if not all(isinstance(name, str) for name in names) or len(names) > PATTERNS_LIMIT:
            raise BadFile(f"{path}: {key} is {config[key]!r:.100}, not a list of at most {PATTERNS_LIMIT} names")
    layers = _listed(config.get("layers_to_transform"))
    if not all(type(layer) is int for layer in layers):
        raise BadFile(f"{path}: layers_to_transform is {config['layers_to_transform']!r:.100}, not a list of numbers")
    if layers and isinstance(targets, str):
        raise BadFile(
            f"{path}: layers_to_transform cannot be combined with a pattern in target_modules", "list the module names"
        )
    mapping = config.get("auto_mapping") or {}
    stated = {key: config.get(key) for key in ("base_model_name_or_path", "revision", "task_type")}
    if not isinstance(mapping, dict):
        raise BadFile(f"{path}: auto_mapping is {mapping!r:.100}, not a JSON object")
    for key, value in {**stated, **{k: mapping.get(k) for k in ("base_model_class", "parent_library")}}.items():
        if not isinstance(value, str | None) or len(value or "") > _TEXT_LIMIT:
            raise BadFile(f"{path}: {key} is {value!r:.100}, not a string of at most {_TEXT_LIMIT} characters")


def _listed(value: Any) -> list[Any]:
    """Wrap a single value in a list. None and "" give an empty list."""
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _shown(values: list[Any]) -> str:
    return ", ".join(map(str, values[:12])) + (", ..." if len(values) > 12 else "")
