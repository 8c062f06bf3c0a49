"""Short summaries of an adapter's metadata, which may come from an untrusted file and have arbitrary values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sglora_cli.system.display import Share, html_table, quoted, weights_line


def expert_weights(metadata: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the experts and their weights; [] unless the metadata has a list of such pairs.

    >>> expert_weights({"experts": [["pets/pug", 0.75], ["pets/boxer", 0.25]]})
    [('pets/pug', 0.75), ('pets/boxer', 0.25)]
    """
    rows = metadata.get("experts")
    rows = rows if isinstance(rows, list) else []
    well = all(isinstance(row, list) and len(row) == 2 and _is_number(row[1]) for row in rows)
    return [(str(row[0]), row[1]) for row in rows] if well else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and -1e300 < value < 1e300  # a JSON integer may be larger than any float


def task_of(metadata: Mapping[str, Any]) -> str:
    """Return the adapter's description, quoted.

    >>> task_of({"description": "a photo of a pug"}), task_of({})
    ("'a photo of a pug'", 'an unknown task')
    """
    return quoted(metadata["description"]) if "description" in metadata else "an unknown task"


def line(kind: str, metadata: Mapping[str, Any], size: str) -> str:
    """Return an adapter's `repr`. kind: its class.  size: a description of its parameters.

    >>> line("AdapterFile", {"description": "a pug", "generator": "cvae"}, "8 parameters")
    "AdapterFile('a pug': 8 parameters; generator 'cvae')"
    """
    origin = [f"{name} {quoted(metadata[name])}" for name in ("backbone", "generator") if name in metadata]
    experts = weights_line(expert_weights(metadata))
    return f"{kind}({task_of(metadata)}: {'; '.join(filter(None, [size, ', '.join(origin), experts]))})"


def table(metadata: Mapping[str, Any], facts: Mapping[str, object]) -> str:
    """Return an adapter's HTML table for notebooks. facts: additional rows, such as its layout."""
    prior, draw = (metadata[key] if isinstance(metadata.get(key), dict) else {} for key in ("prior", "draw"))
    shown = {name: metadata.get(name) for name in ("backbone", "pack", "generator")}
    shown |= {"seed": draw.get("seed"), **facts}
    experts = expert_weights(metadata)
    if experts:
        shown |= {"K": prior.get("k"), "tau": prior.get("tau")}
    rows = [(name, Share(weight)) for name, weight in experts]
    return html_table(f"adapter for {task_of(metadata)}", shown, ("expert", "weight"), rows)
