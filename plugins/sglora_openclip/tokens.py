"""Tokens of a text, counted as open_clip cuts it, and how many its text encoder reads; no weights are needed.

CLIP's tokenizer is part of open_clip, others are files of a hub: only those in the cache of this machine are read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .hub import cached_tokenizer
from .parts import configuration, part

_DEFAULT = 77  # open_clip's, where a configuration does not say


def context_length(architecture: str) -> int:
    """The tokens that the text encoder of an architecture reads.

    Raises UnknownName, and Unavailable where a hub knows it and this machine does not.
    """
    if ":" in architecture:
        return limit(tokenizer_of(architecture))
    return int(configuration(architecture)["text_cfg"].get("context_length", _DEFAULT))


def tokenizer_of(architecture: str) -> Any:
    """Raises UnknownName for an architecture that open_clip does not know, Unavailable for one that is not here."""
    if ":" not in architecture:
        configuration(architecture)
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
    module = part("tokenizer")
    return str(module.canonicalize_text(module.basic_clean(text)))  # as its SigLipTokenizer does
