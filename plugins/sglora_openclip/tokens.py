"""Token counts as open_clip truncates texts, and the limits of text encoders, without weights.

CLIP's tokenizer is part of open_clip. Others are files on a hub, and only those in the cache of this machine are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .hub import cached_tokenizer
from .parts import configuration, part

_DEFAULT = 77  # open_clip's default


def context_length(architecture: str) -> int:
    """Return how many tokens the text encoder of an architecture reads.

    Raises UnknownName, and Unavailable if the tokenizer is on a hub but not on this machine.
    """
    if ":" in architecture:
        return limit(tokenizer_of(architecture))
    return int(configuration(architecture)["text_cfg"].get("context_length", _DEFAULT))


def tokenizer_of(architecture: str) -> Any:
    """Raises UnknownName for an unknown architecture, Unavailable if its tokenizer is not on this machine."""
    if ":" not in architecture:
        configuration(architecture)
    return cached_tokenizer(architecture)


def limit(tokenizer: Any) -> int:
    """Return how many tokens of a text are kept."""
    return int(tokenizer.context_length)


def count(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Count the tokens of each text before truncation, including start and end tokens."""
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
    return str(module.canonicalize_text(module.basic_clean(text)))  # as in its SigLipTokenizer
