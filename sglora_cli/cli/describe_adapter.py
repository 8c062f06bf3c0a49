"""Text description of an adapter file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sglora_cli.adapter import checkpoint
from sglora_cli.adapter.file import AdapterFile, load_adapter
from sglora_cli.adapter.peft_config import CONFIG
from sglora_cli.adapter.provenance import expert_weights
from sglora_cli.adapter.read import Found, lacks_scaling, read_adapter, recognise
from sglora_cli.system.display import counted


def any_adapter(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Describe an adapter in any format, as JSON values and as lines. Raises BadFile or Mismatch if it is broken."""
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
    effect = "" if norm else " (no effect)"
    unknown = f", assuming lora_alpha 1, because there is no {CONFIG} beside it" if unscaled else ""
    return facts, [
        f"adapter in format {foreign.format} for {foreign.metadata.get('description', 'an unknown task')!r}",
        f"backbone   {foreign.metadata.get('backbone', 'unknown')}, fingerprint {foreign.fingerprint or 'unknown'}",
        *([] if "backbone" in foreign.metadata else [f"base       {foreign.base}"]),
        f"layout     rank {', '.join(map(str, ranks))}, {counted(len(foreign.parts), 'site')}, "
        f"{foreign.size} parameters",
        *(f"sites      {place}" for place in places),
        f"update     norm {norm:.3f}{effect}{unknown}",
        f"damaged    no update of {', '.join(foreign.unmet)}" if foreign.unmet else "healthy    complete and finite",
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
        f"content    {counted(len(tensors), 'tensor')}, {counted(numbers, 'parameter')}",
        "update     the difference to a backbone; extract it with `sglora import FILE -o NEW.safetensors`",
        f"damaged    not finite: {', '.join(broken)}" if broken else "healthy    complete and finite",
    ]


def adapter_facts(adapter: AdapterFile) -> list[str]:
    metadata, layout = adapter.metadata, adapter.layout
    norm = float(layout.update_norm(adapter.flat_P))
    experts = ", ".join(f"{name} {weight:.1%}" for name, weight in expert_weights(metadata))
    experts = experts or ("none" if metadata.get("experts") == [] else "unknown")
    made_by = f"generator {metadata.get('generator', 'unknown')} of pack {metadata.get('pack', 'unknown')}"
    source = metadata.get("imported")
    if isinstance(source, dict) and "generator" not in metadata:
        made_by = f"another program, imported from {source.get('name')} ({source.get('format')})"
    return [
        f"adapter for {metadata.get('description', 'an unknown task')!r}",
        f"backbone   {metadata.get('backbone', 'unknown')}, fingerprint {adapter.fingerprint or 'unknown'}",
        f"layout     {layout.line}",
        f"made by    {made_by}",
        f"experts    {experts}",
        f"update     norm {norm:.3f}" + ("" if norm else " (no effect)"),
    ]
