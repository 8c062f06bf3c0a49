"""Patterns of a stranger's adapter_config.json: PEFT's rule, and a limit for all of them together."""

from __future__ import annotations

import re
import time

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from sglora_cli.adapter import foreign, patterns
from sglora_cli.adapter.foreign import checked_parts
from sglora_cli.adapter.patterns import ENDS, EXPANDED_LIMIT, WHOLE, Patterns
from sglora_cli.errors import BadFile

PARTS = st.lists(st.sampled_from(["a", "b", "ab", "q_proj", "0", "11", ""]), min_size=1, max_size=4).map(".".join)


@given(PARTS, PARTS)
def test_a_plain_name_matches_as_in_peft(pattern, name):
    by_peft = re.match(rf"(.*\.)?({pattern})$", name) is not None  # peft.utils.other.get_pattern_key
    if pattern:
        assert Patterns("x").matches(pattern, name, "rank_pattern") == by_peft
        whole = re.fullmatch(pattern, name) is not None
        assert Patterns("x").matches(pattern, name, "target_modules", WHOLE) == whole


@pytest.mark.parametrize("pattern", [r"blocks\.\d+\.q", "(q|k)", r".*\.1\..*", r"\d{1,2}\.q", "a{3}"])
def test_a_pattern_matches_as_in_peft(pattern):
    for name in ("visual.blocks.0.q", "blocks.11.k", "q", "aaa", "x.aaa", "aaaa", "12.q", "x12.q", "a.1.b"):
        by_peft = re.match(rf"(.*\.)?({pattern})$", name) is not None
        assert Patterns("x").matches(pattern, name, "rank_pattern") == by_peft


@pytest.mark.parametrize(
    "pattern",
    [
        "(((((a{100}){100}){100}){100}){100})",
        "(ab|cd){20000}",
        "(ab|cd){,20000}",
        "a{99999999999999999999}",
        "(x" + "y" * EXPANDED_LIMIT + ")",
        "(?x)(ab){1 0 0 0 0 0 0}",
        "(?ix)(ab){1#\n000000}",
    ],
)
def test_a_pattern_that_takes_all_memory_is_not_compiled(pattern, monkeypatch):
    monkeypatch.setattr(regex, "compile", lambda *_, **__: pytest.fail("it is compiled"))
    with pytest.raises(BadFile, match="x: rank_pattern has a pattern that is too large"):
        Patterns("x").check(pattern, "rank_pattern")


def test_plain_names_are_not_compiled(monkeypatch):
    monkeypatch.setattr(regex, "compile", lambda *_, **__: pytest.fail("it is compiled"))
    names = [f"visual.blocks.{n}.q_proj" for n in range(200)]
    own = Patterns("x")
    for name in names:
        own.check(name, "rank_pattern")
    found = [next(key for key in names if own.matches(key, name, "rank_pattern")) for name in names]
    assert found == names


def test_all_patterns_of_a_file_have_one_budget(monkeypatch):
    monkeypatch.setattr(patterns, "ALL_PATTERNS_SECONDS", 0.3)
    own, slow = Patterns("x"), "(?P<x>a*)(?P<y>a*)(?P<z>a*)(?P=x)(?P=y)[!?]"
    assert not own.matches(slow, "a" * 40, "rank_pattern", ENDS)  # one is fast enough
    start = time.perf_counter()
    with pytest.raises(BadFile, match="x has a pattern that takes too long"):
        any(own.matches(f"{slow}|z{n}", "a" * 40, "rank_pattern", ENDS) for n in range(1000))
    assert time.perf_counter() - start < 5


def test_compiling_counts_too(monkeypatch):
    monkeypatch.setattr(patterns, "ALL_PATTERNS_SECONDS", 0.2)
    own, large = Patterns("x"), "|".join(f"(a|b){n}" for n in range(300))
    with pytest.raises(BadFile, match="takes too long"):
        any(own.check(f"{large}|{n}", "rank_pattern") for n in range(5000))


@pytest.mark.parametrize("pattern", ["(", "[", "(?P<a>x)(?P<a", "*", "(" * 5000 + ")" * 5000])
def test_a_pattern_that_is_none_is_refused(pattern):
    with pytest.raises(BadFile, match="x: rank_pattern has the invalid pattern"):
        Patterns("x").check(pattern, "rank_pattern")


def test_the_weights_of_a_file_are_counted(monkeypatch):
    monkeypatch.setattr(foreign, "PARTS_LIMIT", 2)
    with pytest.raises(BadFile, match="x has updates of 3 weights, the limit is 2"):
        checked_parts(dict.fromkeys("abc"), "x")
    with pytest.raises(BadFile, match="has more than 1000 characters"):
        checked_parts({"a." * 600: None}, "x")
