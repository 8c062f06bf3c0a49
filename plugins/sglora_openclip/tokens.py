"""Tokens of a text, counted as open_clip cuts it, and how many its text encoder reads; no weights are needed.

CLIP's tokenizer is part of open_clip, others are files of a hub: only those in the cache of this machine are read here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sglora_cli.api import UnknownName

from .hub import cached_tokenizer

_DEFAULT = 77  # open_clip's, where a configuration does not say


def context_length(architecture: str) -> int:
    """The tokens that the text encoder of an architecture reads; open_clip is not imported for its own ones.

    Raises UnknownName, and Unavailable where a hub knows it and this machine does not.
    """
    spec = find_spec("open_clip")
    path = Path(spec.origin).parent / "model_configs" / f"{architecture}.json" if spec and spec.origin else None
    if path is not None and ":" not in architecture and path.is_file():
        return int(json.loads(path.read_text(encoding="utf-8"))["text_cfg"].get("context_length", _DEFAULT))
    return limit(tokenizer_of(architecture))


def tokenizer_of(architecture: str) -> Any:
    """Raises UnknownName for an architecture that open_clip does not know, Unavailable for one that is not here."""
    import open_clip

    if ":" not in architecture and open_clip.get_model_config(architecture) is None:
        raise UnknownName.of("architecture in open_clip", architecture, open_clip.list_models())
    return cached_tokenizer(architecture)


def limit(tokenizer: Any) -> int:
    """The tokens that are kept of a text."""
    return int(tokenizer.context_length)


def count(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Tokens of each text before it is cut, with those that frame it."""
    if hasattr(tokenizer, "encode"):  # CLIP's own
        return [len(tokenizer.encode(text)) + 2 for text in texts]
    framed_later = getattr(tokenizer, "tokenizer_mode", "") == "clips"  # a start, an end and a class token
    encoded = tokenizer.tokenizer(
        [_cleaned(tokenizer, text) for text in texts], add_special_tokens=not framed_later, verbose=False
    )
    return [len(ids) + 3 * framed_later for ids in encoded["input_ids"]]


def _cleaned(tokenizer: Any, text: str) -> str:
    if hasattr(tokenizer, "clean_fn"):
        return str(tokenizer.clean_fn(text))
    from open_clip.tokenizer import basic_clean, canonicalize_text  # as its SigLipTokenizer does

    return str(canonicalize_text(basic_clean(text)))
