"""Text description of a pack. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sglora_cli.pack.origin import origins
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import AGAINST, ROLES, ZERO


def pack_facts(pack: Pack, health: Sequence[str] = ()) -> list[str]:
    """Return the description in lines. health: lines about the measured quality of its generators."""
    lines = [
        f"pack {pack.name}: {pack.manifest['recipe'].get('summary', '')}".rstrip(": "),
        f"folder     {pack.folder}",
        *(f"from       {origin}" for origin in origins(pack.folder)[:1]),
        f"backbone   {pack.backbone}, fingerprint {pack.fingerprint}",
        f"layout     rank {pack.layout.rank}, alpha {pack.layout.alpha:g}, "
        f"{len(pack.layout.sites)} sites, {pack.layout.size} parameters",
        f"prior      K {pack.prior_config.k}, tau {pack.prior_config.tau:g}, space {pack.prior_config.space}",
    ]
    for role in ROLES:
        by_set: dict[str, list[str]] = {}
        for task in pack.tasks.of(role):
            by_set.setdefault(task["dataset"], []).append(task["name"])
        lines += [f"{role:<10} {dataset}: {', '.join(names)}" for dataset, names in by_set.items()]
    if left_out := sum(task["left_out"] for task in pack.tasks if type(task.get("left_out")) is int):
        lines.append(f"left out   {left_out} training photos, because unseen tasks are tested on them")
    for name, measured in pack.manifest["generators"].items():
        facts = ", ".join(f"{k} {_short(v)}" for k, v in sorted(measured.items()) if k != "held_out")
        lines.append(f"generator  {name}: {facts}")
        lines += [f"held out   {name}: {line}" for line in held_out(measured.get("held_out"))]
    lines += health
    lines += [f"changed    {edit}" for edit in pack.manifest.get("edits", [])]
    return lines


def held_out(fits: Any) -> list[str]:
    """Return lines with a generator's scores on held-out training tasks, or [] if they were not measured."""
    try:
        cells, scores, gains = list(fits["gain"]), dict(fits["scores"]), fits["gain"].values()
        ordered = {name: scores.pop(name) for name in (ZERO, AGAINST)} | scores
        by_method = [f"{name} {' / '.join(f'{value:.1f}' for value in one.values())}" for name, one in ordered.items()]
        gain = " / ".join(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" for mean, low, high in gains)
        return [
            f"{' / '.join(cells)} on {fits['tasks']} training tasks, each held out of the fit: {', '.join(by_method)}",
            f"{fits['folds']} folds; difference to {AGAINST} with 95 % confidence interval: {gain}",
        ]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # a manifest may have any content
        return []


def pack_health(pack: Pack) -> list[str]:
    wrong = pack.verify()
    return [f"damaged    {sentence}" for sentence in wrong] or [
        f"healthy    {len(pack.manifest['files'])} files match their hashes"
    ]


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
