"""The provenance that an adapter file records, as one flat table of facts.

A file may come from an untrusted source with arbitrary metadata. Nothing here relies on its values.
"""

from __future__ import annotations

import json
import math
from typing import Any

from sglora_cli.adapter.foreign import ForeignAdapter
from sglora_cli.adapter.provenance import expert_weights

Fact = str | int | float | bool | None

_OF_THE_FILE = {"kind", "format", "layout"}
"""Metadata keys that describe the file format."""
_INLINE = {"prior", "draw"}
"""Tables whose keys are shown without the table's name."""
_NAMES = {"k": "K", "described_by": "described by"}
_FIRST = ("description", "described by", "backbone", "fingerprint", "base", "pack", "generator", "K", "tau", "seed")


def made_from(foreign: ForeignAdapter) -> dict[str, Fact]:
    """Return the recorded facts by name: the provenance, or the base and format of another program's file.

    Experts are not included, see `provenance.expert_weights`. Tables are flattened, and lists become JSON strings.

    >>> made_from(ForeignAdapter({}, "safetensors", metadata={"draw": {"seed": 3}, "prior": {"k": 4}}))
    {'K': 4, 'seed': 3, 'format': 'safetensors'}
    """
    facts: dict[str, Fact] = {}
    told = _OF_THE_FILE | ({"experts"} if expert_weights(foreign.metadata) else set())
    rows = [(isinstance(value, dict), key, value) for key, value in foreign.metadata.items() if key not in told]
    for _, key, value in sorted(rows, key=lambda row: row[:2]):  # tables last, so that plain keys take precedence
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
    """Convert a value to a string, a number, a Boolean or None."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, Fact) else json.dumps(value, ensure_ascii=False)
