"""What an adapter, a pack or a recipe is, in lines for a person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sglora_cli.adapter import checkpoint
from sglora_cli.adapter.file import AdapterFile, load_adapter
from sglora_cli.adapter.made_from import expert_weights
from sglora_cli.adapter.peft_config import CONFIG
from sglora_cli.adapter.read import Found, lacks_scaling, read_adapter, recognise
from sglora_cli.config import PhraseConfig, PriorConfig, TrainConfig
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.recipe import Recipe
from sglora_cli.plugin.values import AGAINST, ROLES, ZERO


def any_adapter(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Facts of an adapter in any format, for a program and in lines. Raises BadFile, Mismatch for a broken one."""
    found = recognise(path)
    if found.kind == "safetensors":
        adapter = load_adapter(path)
        return dict(adapter.metadata), adapter_facts(adapter)
    if found.kind == "open_clip":
        return _checkpoint_facts(found)
    unscaled = lacks_scaling(found)
    foreign = read_adapter(found, alpha=1.0 if unscaled else None)
    norm, ranks = foreign.norm(), sorted({b.shape[1] for b, _ in foreign.parts.values()})
    places = dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in foreign.parts)
    facts = {
        "format": foreign.format,
        "ranks": ranks,
        "sites": list(foreign.parts),
        "numbers": foreign.size,
        "norm": norm,
        "base": foreign.base.to_json(),
        "lacks": list(foreign.unmet),
        "about": dict(foreign.metadata),
    }
    effect = "" if norm else ": it changes nothing"
    unknown = f", if its lora_alpha is 1: there is no {CONFIG} beside it" if unscaled else ""
    return facts, [
        f"adapter in format {foreign.format} for {foreign.metadata.get('description', 'an unknown task')!r}",
        f"backbone   {foreign.metadata.get('backbone', 'unknown')}, fingerprint {foreign.fingerprint or 'unknown'}",
        *([] if "backbone" in foreign.metadata else [f"base       {foreign.base}"]),
        f"layout     rank {', '.join(map(str, ranks))}, {len(foreign.parts)} sites, {foreign.size} numbers",
        *(f"sites      {place}" for place in places),
        f"update     norm {norm:.3f}{effect}{unknown}",
        f"damaged    no update of {', '.join(foreign.unmet)}" if foreign.unmet else "healthy    whole and finite",
    ]


def _checkpoint_facts(found: Found) -> tuple[dict[str, Any], list[str]]:
    tensors, metadata = checkpoint.read_state(found.path, found.content)
    numbers = sum(x.numel() for x in tensors.values())
    broken = sorted(name for name, x in tensors.items() if x.is_floating_point() and not bool(x.isfinite().all()))
    facts = {
        "format": "open_clip",
        "tensors": len(tensors),
        "numbers": numbers,
        "not_finite": broken,
        "about": metadata,
    }
    return facts, [
        f"checkpoint with a merged update for {metadata['description']!r}"
        if "description" in metadata
        else "checkpoint",
        f"backbone   {metadata.get('backbone', 'unknown')}, fingerprint {metadata.get('fingerprint', 'unknown')}",
        f"content    {len(tensors)} tensors, {numbers} numbers",
        "update     its difference to a backbone: `sglora import` finds it",
        f"damaged    not finite: {', '.join(broken)}" if broken else "healthy    whole and finite",
    ]


def adapter_facts(adapter: AdapterFile) -> list[str]:
    metadata, layout = adapter.metadata, adapter.layout
    norm = float(layout.update_norm(adapter.flat_P))
    experts = ", ".join(f"{name} {weight:.1%}" for name, weight in expert_weights(metadata))
    experts = experts or ("none" if metadata.get("experts") == [] else "unknown")
    made_by = f"generator {metadata.get('generator', 'unknown')} of pack {metadata.get('pack', 'unknown')}"
    source = metadata.get("imported")
    if isinstance(source, dict) and "generator" not in metadata:
        made_by = f"another program: imported from {source.get('name')} ({source.get('format')})"
    return [
        f"adapter for {metadata.get('description', 'an unknown task')!r}",
        f"backbone   {metadata.get('backbone', 'unknown')}, fingerprint {adapter.fingerprint or 'unknown'}",
        f"layout     rank {layout.rank}, alpha {layout.alpha:g}, {len(layout.sites)} sites, {layout.size} numbers",
        f"made by    {made_by}",
        f"experts    {experts}",
        f"update     norm {norm:.3f}" + ("" if norm else ": it changes nothing"),
    ]


def pack_facts(pack: Pack, health: Sequence[str] = ()) -> list[str]:
    """In lines; `health` is what was measured of its generators."""
    lines = [
        f"pack {pack.name}: {pack.manifest['recipe'].get('summary', '')}".rstrip(": "),
        f"folder     {pack.folder}",
        f"backbone   {pack.backbone}, fingerprint {pack.fingerprint}",
        f"layout     rank {pack.layout.rank}, alpha {pack.layout.alpha:g}, "
        f"{len(pack.layout.sites)} sites, {pack.layout.size} numbers",
        f"prior      K {pack.prior_config.k}, tau {pack.prior_config.tau:g}, space {pack.prior_config.space}",
    ]
    for role in ROLES:
        by_set: dict[str, list[str]] = {}
        for task in pack.tasks.of(role):
            by_set.setdefault(task["dataset"], []).append(task["name"])
        lines += [f"{role:<10} {dataset}: {', '.join(names)}" for dataset, names in by_set.items()]
    if left_out := sum(task["left_out"] for task in pack.tasks if type(task.get("left_out")) is int):
        lines.append(f"left out   {left_out} training photos of tasks: unseen tasks are tested on them")
    for name, measured in pack.manifest["generators"].items():
        facts = ", ".join(f"{k} {_short(v)}" for k, v in sorted(measured.items()) if k != "held_out")
        lines.append(f"generator  {name}: {facts}")
        lines += [f"held out   {name}: {line}" for line in held_out(measured.get("held_out"))]
    lines += health
    lines += [f"changed    {edit}" for edit in pack.manifest.get("edits", [])]
    return lines


def held_out(fits: Any) -> list[str]:
    """How a generator did on training tasks that it was not fitted on, in lines; [] where nobody measured that."""
    try:
        cells, scores, gains = list(fits["gain"]), dict(fits["scores"]), fits["gain"].values()
        ordered = {name: scores.pop(name) for name in (ZERO, AGAINST)} | scores
        by_method = [f"{name} {' / '.join(f'{value:.1f}' for value in one.values())}" for name, one in ordered.items()]
        gain = " / ".join(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" for mean, low, high in gains)
        return [
            f"{' / '.join(cells)} on {fits['tasks']} training tasks, each left out of its fit: {', '.join(by_method)}",
            f"{fits['folds']} folds; its difference to {AGAINST}, with the 95 % interval: {gain}",
        ]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # a manifest may say what it likes
        return []


def pack_health(pack: Pack) -> list[str]:
    wrong = pack.verify()
    return [f"damaged    {sentence}" for sentence in wrong] or [
        f"healthy    {len(pack.manifest['files'])} files, all as built"
    ]


def recipe_facts(recipe: Recipe) -> list[str]:
    lines = [
        f"recipe {recipe.name}: {recipe.raw.get('summary', '')}".rstrip(": "),
        f"backbone   {recipe.backbone}",
        f"template   {recipe.template!r}",
        f"training   {_settings(recipe.train)}",
        f"prior      {_settings(recipe.prior)}",
        f"generators {', '.join(recipe.generators) or 'merging rules only'}",
    ]
    if recipe.from_captions:
        lines.append(f"phrases    of the captions of {', '.join(recipe.from_captions)}: {_settings(recipe.phrases)}")
    for source in recipe.sources:
        counts = ", ".join(f"{len(names)} {role}" for role, names in source.roles.items())
        lines.append(f"source     {source.name} ({source.dataset}: {source.path}): {counts}")
    return lines


def _settings(config: TrainConfig | PriorConfig | PhraseConfig) -> str:
    return ", ".join(f"{key} = {value}" for key, value in asdict(config).items())


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
