"""What an adapter says of itself, at a glance. It may come from a stranger's file and say anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sglora_cli.system.display import Share, html_table, quoted, weights_line


def expert_weights(metadata: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The experts and their weights; [] for anything else than a list of such pairs.

    >>> expert_weights({"experts": [["pets/pug", 0.75], ["pets/boxer", 0.25]]})
    [('pets/pug', 0.75), ('pets/boxer', 0.25)]
    """
    rows = metadata.get("experts")
    rows = rows if isinstance(rows, list) else []
    well = all(isinstance(row, list) and len(row) == 2 and _is_number(row[1]) for row in rows)
    return [(str(row[0]), row[1]) for row in rows] if well else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and -1e300 < value < 1e300  # an int of JSON may be larger than any float


def task_of(metadata: Mapping[str, Any]) -> str:
    """What the adapter is for, quoted.

    >>> task_of({"description": "a photo of a pug"}), task_of({})
    ("'a photo of a pug'", 'an unknown task')
    """
    return quoted(metadata["description"]) if "description" in metadata else "an unknown task"


def line(kind: str, metadata: Mapping[str, Any], size: str) -> str:
    """An adapter's `repr`. kind: its class.  size: what its numbers are.

    >>> line("AdapterFile", {"description": "a pug", "generator": "cvae"}, "8 numbers")
    "AdapterFile('a pug': 8 numbers; generator 'cvae')"
    """
    origin = [f"{name} {quoted(metadata[name])}" for name in ("backbone", "generator") if name in metadata]
    experts = weights_line(expert_weights(metadata))
    return f"{kind}({task_of(metadata)}: {'; '.join(filter(None, [size, ', '.join(origin), experts]))})"


def table(metadata: Mapping[str, Any], facts: Mapping[str, object]) -> str:
    """An adapter's table in a notebook. facts: what its numbers are, and what else is known of it."""
    prior, draw = (metadata[key] if isinstance(metadata.get(key), dict) else {} for key in ("prior", "draw"))
    shown = {name: metadata.get(name) for name in ("backbone", "pack", "generator")}
    shown |= {"seed": draw.get("seed"), **facts}
    experts = expert_weights(metadata)
    if experts:
        shown |= {"K": prior.get("k"), "tau": prior.get("tau")}
    rows = [(name, Share(weight)) for name, weight in experts]
    return html_table(f"adapter for {task_of(metadata)}", shown, ("expert", "weight"), rows)
