"""Different texts get different file names, on every system."""

from __future__ import annotations

import re
from itertools import product

from sglora_cli.files.names import file_stem

ALPHABET = ("a", "A", " ", "-", "_", "/", "~", "+", "é", "猫", ".")


def test_no_two_texts_share_a_name_even_where_case_does_not_count():
    texts = ["".join(letters) for size in (1, 2, 3, 4) for letters in product(ALPHABET, repeat=size)]
    assert len({file_stem(text).casefold() for text in texts}) == len(texts)


def test_a_name_is_safe_everywhere_and_can_be_joined_by_two_hyphens():
    odd = ("", "..", "con", "LPT1", "猫", "a" * 5000, "ab " * 60, "../../x", "-rf", "a\0b", "\ud800", " x ", "a  b")
    for text in odd:
        name = file_stem(text)
        assert re.fullmatch(r"[a-z0-9_][a-z0-9_~-]{0,96}", name), (text, name)
        assert "--" not in name
        assert name not in ("con", "lpt1")
