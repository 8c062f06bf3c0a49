"""JSON Schemas of what each command prints with `--json`.

A shape is `str`, `int`, `float`, `bool` or ANY. [x] is a list of x, {"*": x} an object with any keys and values x,
(x, None) is x or null, and {"key": x, "may_be?": x} is an object with an optional key. Objects may have more keys than
listed here, and programs should ignore keys they do not know. Units are part of the key, as in `bytes` and `seconds`.
"""

from __future__ import annotations

from typing import Any

from sglora_cli.errors import UnknownName

ANY = object()
DRAFT = "https://json-schema.org/draft/2020-12/schema"

_EXPERTS = [{"task": str, "weight": float, "similarity": float}]
_MADE = {
    "files": [str],
    "pack": str,
    "pack_because": str,
    "generator": str,
    "experts": _EXPERTS,
    "warnings": [str],
    "about": {"backbone": str, "fingerprint": str, "pack": str, "generator": str, "prior": ANY, "draw": ANY},
    "explained?": {"prior": ANY, "coverage": ANY, "samples": [ANY], "diversity": ANY, "dependence": ANY},
}
_PARTIAL = {"path": str, "here": int, "named": int}
_PASSED_OVER = {"reason": str, "count": int, "examples": [str]}
_PHOTOS = {
    "adapter": (str, None),
    "backbone": str,
    "fingerprint": str,
    "photos": int,
    "computed": int,
    "skipped": [str],
    "passed_over": [_PASSED_OVER],
    "copied_to": (str, None),
    "report": (str, None),
}
_RELEVANCE = {"precision": float, "average_precision": float, "reciprocal_rank": float}
_ONE_ERROR = {"class": str, "message": str, "hint": str, "exit_code": int}
_ERROR = {**_ONE_ERROR, "errors?": [_ONE_ERROR]}
_TROUBLE = {"plugin": str, "reason": str, "hint": str}
_SETTING = {"value": str, "origin": str}
_CAPTIONS = {"dataset": str, "path": str, "output": str, "images": int, "captioned_before": int}
_ADAPTER = {"file": str, "made_from": {"*": ANY}, "experts": {"*": float}}
_SIMILARITY = {"cosine": (float, None), "norm_a": float, "norm_b": float, "difference": float}
_ADDED = {"key": str, "name": str, "description": str}
_MANIFEST = {
    "name": str,
    "format": int,
    "made_by": str,
    "backbone": str,
    "fingerprint": str,
    "layout": ANY,
    "prior": ANY,
    "recipe": ANY,
    "tasks": [{"key": str, "dataset": str, "name": str, "role": str, "description": str}],
    "generators": ANY,
    "default_generator": str,
    "files": {"*": str},
    "health": {"*": {"faults": [str], "notes": [str]}},
    "pulled_from?": (str, None),
    "dependence?": {"*": ANY},
}
_COMPARED = {"target": str, "title": str, "comparable": bool, "folder": str}
_STEP = {
    "step": str,
    "kind": str,
    "name": str,
    "needs": [str],
    "command": str,
    "state": str,
    "download_bytes": (int, None),
    "disk_bytes": (int, None),
    "seconds_range": ([float], None),
    "terms": [{"what": str, "licence": str, "url": str}],
    "remarks": [str],
    "missing": [_ONE_ERROR],
}
SHAPES: dict[str, Any] = {
    "error": {"error": _ERROR},
    "generate": _MADE,
    "generate -": {"line": int, "error?": _ERROR, **{f"{key.rstrip('?')}?": shape for key, shape in _MADE.items()}},
    "list": {
        "adapters": [
            {
                "name": str,
                "path": str,
                "description": (str, None),
                "generator": (str, None),
                "pack": (str, None),
                "backbone": (str, None),
                "written": str,
            }
        ]
    },
    "search": {
        "sentence": (str, None),
        "like": (str, None),
        "within": (str, None),
        **_PHOTOS,
        "left_out": [str],
        "results": [
            {
                "rank": int,
                "score": float,
                "photo": str,
                "path": str,
                "rank_without?": int,
                "score_without?": float,
            }
        ],
    },
    "classify": {
        "names": {"*": int},
        **_PHOTOS,
        "folders": {"photos": int, "agree": int, "agree_without": int},
        "results": [{"photo": str, "path": str, "name": str, "probability": float, "name_without?": str}],
    },
    "try": {
        "adapter": str,
        "description": (str, None),
        "backbone": str,
        "fingerprint": str,
        "ranked": str,
        "skipped": [str],
        "passed_over": [_PASSED_OVER],
        "rankings": [
            {
                "query": str,
                "of": int,
                "change": ANY,
                "items": [
                    {"item": str, "rank_before": int, "rank_after": int, "score_before": float, "score_after": float}
                ],
            }
        ],
        "relevance": (
            {
                "photos": int,
                "of": int,
                "k": int,
                "before": _RELEVANCE,
                "after": _RELEVANCE,
                "difference": {"mean": float, "low": float, "high": float},
            },
            None,
        ),
        "report": (str, None),
    },
    "inspect": {"*": ANY},
    "diff": {
        "a": _ADAPTER,
        "b": _ADAPTER,
        "differs": [str],
        **_SIMILARITY,
        "relative_difference": (float, None),
        "summary": str,
        "sites": [{"site": str, **_SIMILARITY}],
        "notes": [str],
    },
    "export": {"file": str, "format": str, "backbone": str},
    "import": {"file": str, "backbone": str, "imported": {"format": str, "name": str, "sha256": str}},
    "bench": {
        "pack": str,
        "methods": {"*": str},
        "against": str,
        "notes": [str],
        "averages": {"*": {"*": float}},
        "differences": {"*": {"mean": float, "low": float, "high": float}},
        "rows": [ANY],
    },
    "bench --dry-run": {
        "pack": str,
        "tasks": [str],
        "methods": [str],
        "adapters": int,
        "images_to_encode": int,
        "images_at_least": int,
        "images_known": int,
        "images_per_second": float,
        "seconds": float,
        "seconds_range": [float],
    },
    "bench --folds --dry-run": {
        "folds": [
            {
                "recipe": str,
                "backbone": str,
                "roles": {"*": {"tasks": int, "photos": int}},
                "built": bool,
                "adapters_to_train?": int,
                "seconds?": float,
                "memory_bytes?": int,
            }
        ]
    },
    "report": {"written": [str], "missing": {"*": ANY}, "left_out": [str]},
    "reproduce": {
        **_COMPARED,
        "warning": (str, None),
        "tables": [
            {
                "title": str,
                "tasks": int,
                "columns": [str],
                "lines": [{"label": str, "numbers": [{"measured": (float, None), "paper": (float, None)}]}],
            }
        ],
        "notes": [str],
        "steps": [_STEP],
    },
    "reproduce --list": {"targets": [{"name": str, "title": str, "cannot": (str, None)}]},
    "reproduce --dry-run": {**_COMPARED, "with": (str, None), "steps": [_STEP], "missing": [_ONE_ERROR]},
    "pack list": {
        "packs": [
            {
                "name": str,
                "origin": str,
                "folder": str,
                "default": bool,
                "backbone": str,
                "experts": int,
                "pulled_from": (str, None),
            }
        ]
    },
    "pack show": _MANIFEST,
    "pack verify": {"pack": str, "files": int, "wrong": [str]},
    "pack build": {"folder": str, "partial": [_PARTIAL], "passed_over": [{"path": str, **_PASSED_OVER}]},
    "pack build --dry-run": {
        "recipe": str,
        "backbone": str,
        "roles": {"*": {"tasks": int, "photos": int}},
        "left_out": {"*": int},
        "epochs": int,
        "generators": [str],
        "stages": [{"name": str, "what": str, "seconds": float, "most": float}],
        "adapters_to_train": int,
        "device": str,
        "seconds": float,
        "seconds_range": [float],
        "memory_bytes": int,
        "device_memory_bytes": int,
        "cache_bytes": int,
        "pack_bytes": int,
        "target": str,
        "partial": [_PARTIAL],
        "passed_over": [{"path": str, **_PASSED_OVER}],
    },
    "pack add": {"folder": str, "task": _ADDED, "tasks": [_ADDED]},
    "pack migrate": {"folder": str, "from": int, "to": int},
    "pack update": {"folder": str, "added": str},
    "pack remove": {"pack": str, "expert": (str, None), "folder": str, "notes": [str]},
    "pack export": {"file": str, "pack": str, "bytes": int, "sha256": str},
    "pack import": {
        "pack": str,
        "backbone": str,
        "fingerprint": str,
        "folder": str,
        "warnings": [str],
        "signed_by": ANY,
    },
    "pack pull": {
        "pack": str,
        "backbone": str,
        "fingerprint": str,
        "folder": str,
        "warnings": [str],
        "signed_by": (str, None),
        "pulled_from": str,
        "was_here": bool,
    },
    "pack push": {
        "pack": str,
        "repository": str,
        "files": {"*": int},
        "commit": (str, None),
        "url": (str, None),
    },
    "pack init": {"file": str},
    "pack init --data": {
        "file": str,
        "dataset": str,
        "tasks": [{"task": str, "train": int, "test": int, "role": (str, None)}],
        "reasons": [str],
        "captioned": int,
        "waiting": int,
        "caption_command": str,
        "command": str,
    },
    "pack recipes": {"recipes": [{"name": str, "file": str, "backbone": str, "summary": str}]},
    "data list": {"datasets": [{"name": str, "summary": str, "fetch": bool}]},
    "data fetch": {"dataset": str, "folder": str},
    "data fetch --dry-run": {
        "dataset": str,
        "folder": str,
        "downloads": [
            {"url": str, "path": str, "bytes": (int, None), "here": int, "done": bool, "left": (int, None)},
        ],
        "left_bytes": (int, None),
        "disk_bytes": (int, None),
        "free_bytes": int,
        "captions": bool,
    },
    "data caption": {
        **_CAPTIONS,
        "written": int,
        "replaced": int,
        "captions": int,
        "left": int,
        "refused": {"*": int},
        "problems": [ANY],
    },
    "data caption --dry-run": {
        **_CAPTIONS,
        "waiting": int,
        "now": int,
        "passed_over": [_PASSED_OVER],
        "cost": (
            {
                "captioner": str,
                "model": str,
                "parameters": int,
                "download_bytes": int,
                "memory_bytes": int,
                "free_memory_bytes": int,
                "device": str,
                "seconds_a_photo": [float],
                "lacks": str,
                "other_way": str,
            },
            None,
        ),
    },
    "data check": {
        "dataset": str,
        "path": str,
        "recipe": (str, None),
        "config": ANY,
        "total": {"tasks": int},
        "tasks": {"*": {"*": ANY}},
        "problems": [{"level": str, "kind": str}],
        "pairs": [
            {"level": str, "kind": str, "distance": int, "equal": bool, "images": [{"name": str, "places": [ANY]}]}
        ],
        "tokens": {"backbone": (str, None), "limit": (int, None), "reason": (str, None)},
        "partial": ({"here": int, "named": int}, None),
        "passed_over": [_PASSED_OVER],
        "overlaps": [{"kind": str, "sides": [{"task": str, "role": str, "split": str}], "photos": int}],
        "errors": int,
        "warnings": int,
        "report": (str, None),
    },
    "plugins list": {"plugins": [{"kind": str, "name": str, "plugin": str, "summary": str}]},
    "plugins doctor": {"plugins": {"*": str}, "problems": [_TROUBLE], "remarks": [_TROUBLE]},
    "plugins new": {"folder": str, "kind": str, "name": str},
    "plugins check": {"kind": str, "name": str, "checks": [{"check": str, "asks": str, "wrong": ANY}]},
    "docs": {"pages": [{"name": str, "summary": str, "file": str}]},
    "docs PAGE": {"name": str, "summary": str, "file": str, "text": str},
    "settings": {"file": str, "settings": {"*": _SETTING}},
    "settings set": {"file": str, "key": str, **_SETTING},
    "settings unset": {"file": str, "key": str, **_SETTING},
    "cache info": {"folder": str, "bytes": int, "kinds": [{"kind": str, "items": int, "bytes": int, "derived": bool}]},
    "cache clean": {
        "dry_run": bool,
        "bytes": int,
        "removed": [{"kind": str, "path": str, "bytes": int}],
        "kept": [{"path": str, "reason": str}],
    },
    "doctor": {
        "works": bool,
        "findings": [{"area": str, "name": str, "state": str, "text": str, "mend": str, "facts": {"*": ANY}}],
    },
}
LINES = ("generate -",)
"""Commands that print one object per line (JSON Lines). All others print a single object."""
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of what `sglora NAME --json` prints. Raises UnknownName.

    >>> schema("pack init")["properties"]
    {'file': {'type': 'string'}}
    """
    if name not in SHAPES:
        raise UnknownName.of("schema", name, SHAPES, "sglora schema")
    title = {"error": "the last line of standard error when a command with --json fails"}
    lines = "one line of " if name in LINES else ""
    return {"$schema": DRAFT, "title": title.get(name, f"{lines}sglora {name} --json"), **_converted(SHAPES[name])}


def _converted(shape: Any) -> dict[str, Any]:
    if shape is ANY:
        return {}
    if isinstance(shape, type):
        return {"type": _TYPES[shape]}
    if isinstance(shape, tuple):
        return {"anyOf": [_converted(shape[0]), {"type": "null"}]}
    if isinstance(shape, list):
        return {"type": "array", "items": _converted(shape[0])}
    if "*" in shape:
        return {"type": "object", "additionalProperties": _converted(shape["*"])}
    return {
        "type": "object",
        "properties": {key.rstrip("?"): _converted(value) for key, value in shape.items()},
        "required": [key for key in shape if not key.endswith("?")],
    }
