"""Conformance checks of backbones that count tokens, on the backbone and its loaded model."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from sglora_cli.plugin.contracts import CountsTokens, Model
from sglora_cli.plugin.testing.backbone import TEXTS
from sglora_cli.plugin.testing.toys import ask, run_all
from sglora_cli.plugin.validation import wrong_counts

_WORDS = " ".join(TEXTS).split()
_LEAST = 1e-6
"""Vectors of two texts differ by more than this if a differing word was read."""


def tokens_are_counted(backbone: CountsTokens, model: Model) -> None:
    """token_limit is at least 1. count_tokens returns one integer per text, which does not depend on other texts. A
    text with more words has more tokens."""
    limit = backbone.token_limit()
    wrong = wrong_counts([limit], 1, least=1)
    ask(not wrong, f"token_limit {wrong}")
    texts = [*TEXTS, _text(limit + 1)]
    counts = backbone.count_tokens(texts)
    wrong = wrong_counts(counts, len(texts))
    ask(not wrong, f"count_tokens {wrong}")
    alone = [count for text in texts for count in backbone.count_tokens([text])]
    ask(list(counts) == alone, "the count of a text depends on the other texts")
    ask(counts[-1] > limit, f"{limit + 1} words have only {counts[-1]} tokens", "also count tokens that are cut")


def token_limit_is_what_is_read(backbone: CountsTokens, model: Model) -> None:
    """encode_text reads a word that ends at token_limit, but none that begins after it."""
    limit = backbone.token_limit()
    if words := bisect_right(range(1, limit + 1), limit, key=lambda n: _most(backbone, n)):
        ask(_reads_last(model, words), f"encode_text does not read the last of {limit} tokens", "return a lower limit")
    ask(not _reads_last(model, limit + 2), f"encode_text reads more than {limit} tokens", "return a higher limit")


def _text(words: int, last: str = "pug") -> str:
    """Return a text with this many words."""
    return " ".join([*(_WORDS[n % len(_WORDS)] for n in range(words - 1)), last])


def _most(backbone: CountsTokens, words: int) -> int:
    return max(backbone.count_tokens([_text(words), _text(words, "lily")]))


def _reads_last(model: Model, words: int) -> bool:
    """Return whether the last word affects the vector. Encodes texts one by one, so equal tokens give equal numbers."""
    one_1D, other_1D = (model.encode_text([_text(words, last)]) for last in ("pug", "lily"))
    return float((one_1D - other_1D).abs().max()) > _LEAST


TOKEN_CHECKS: tuple[Callable[[CountsTokens, Model], None], ...] = (tokens_are_counted, token_limit_is_what_is_read)


def check_tokens(backbone: CountsTokens, model: Model) -> None:
    """Raise PluginError listing everything that is wrong with how a backbone counts tokens."""
    run_all(TOKEN_CHECKS, backbone, model)
