"""What an adapter file says of what it was made from: one flat table of facts.

A file may come from a stranger and say anything of itself: nothing here relies on what it says.
"""

from __future__ import annotations

import json
import math
from typing import Any

from sglora_cli.adapter.foreign import ForeignAdapter
from sglora_cli.adapter.provenance import expert_weights

Fact = str | int | float | bool | None

_OF_THE_FILE = {"kind", "format", "layout"}
"""Keys of the metadata that say how the file is written."""
_INLINE = {"prior", "draw"}
"""Tables whose keys need no name before them."""
_NAMES = {"k": "K", "described_by": "described by"}
_FIRST = ("description", "described by", "backbone", "fingerprint", "base", "pack", "generator", "K", "tau", "seed")


def made_from(foreign: ForeignAdapter) -> dict[str, Fact]:
    """What the file says, by the name of each fact: its provenance, or the base and format of a foreign file.

    Experts are not in it: see `provenance.expert_weights`. Tables are flat, lists are JSON texts.

    >>> made_from(ForeignAdapter({}, "safetensors", metadata={"draw": {"seed": 3}, "prior": {"k": 4}}))
    {'K': 4, 'seed': 3, 'format': 'safetensors'}
    """
    facts: dict[str, Fact] = {}
    told = _OF_THE_FILE | ({"experts"} if expert_weights(foreign.metadata) else set())
    rows = [(isinstance(value, dict), key, value) for key, value in foreign.metadata.items() if key not in told]
    for _, key, value in sorted(rows, key=lambda row: row[:2]):  # tables last: their keys give way to plain ones
        for part, one in (value if isinstance(value, dict) else {"": value}).items():
            plain = _NAMES.get(part or key, part or key)
            name = plain if key in _INLINE or not part else f"{key} {part}"
            facts[name if name not in facts else f"{key} {part}"] = _plain(one)
    if "backbone" not in facts and str(foreign.base) != "unknown":
        facts["base"] = str(foreign.base)
    facts["format"] = foreign.format
    if ranks := sorted({b_OF.shape[1] for b_OF, _ in foreign.parts.values()}):
        facts["rank"] = ranks[0] if len(ranks) == 1 else ", ".join(map(str, ranks))
    first = [name for name in _FIRST if name in facts]
    return {name: facts[name] for name in dict.fromkeys([*first, *sorted(facts)])}


def _plain(value: Any) -> Fact:
    """A value that is a text, a number or nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, Fact) else json.dumps(value, ensure_ascii=False)
