"""What a notebook shows of an object: texts of strangers do no harm, and it is well-formed HTML."""

from __future__ import annotations

from html_page import Page
from hypothesis import given
from hypothesis import strategies as st

from sglora_cli.system.display import Share, html_table, plain, quoted, weights_line

EVIL = "<script>alert(1)</script>\x1b[31m\u202e\ud800\n<img src=x onerror=y>"


def test_texts_of_strangers_are_escaped_wherever_they_stand():
    page = Page(html_table(EVIL, {EVIL: EVIL}, (EVIL,), [(EVIL,)]))
    assert set(page.tags) == {"div", "p", "b", "table", "tr", "th", "td"}
    assert {name for name, _ in page.attributes} == {"style"}
    assert sum("<script>alert(1)</script>" in text for text in page.texts) == 5
    assert all(text.strip().isprintable() for text in page.texts)
    html_table(EVIL, {}).encode()


def test_a_table_brings_no_colour_and_nothing_from_outside():
    html = html_table("x", {"a": 1}, ("b",), [(Share(0.5),)])
    assert not any(word in html for word in ("color", "background", "http", "src", "class", "<style"))


def test_facts_that_are_not_known_are_left_out_and_numbers_are_short():
    texts = Page(html_table("x", {"a": None, "b": 0}, ("c", "d"), [(Share(0.125), 1 / 3)])).texts
    assert [text.strip() for text in texts if text.strip()] == ["x", "b", "0", "c", "d", "12.5%", "0.333"]


@given(st.text(max_size=300), st.integers(4, 100))
def test_a_plain_text_is_one_printable_line_that_is_not_too_long(text, limit):
    shown = plain(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit


@given(st.recursive(st.none() | st.text() | st.floats() | st.integers(), st.lists, max_leaves=20))
def test_whatever_is_quoted_is_one_printable_line(value):
    assert quoted(value).isprintable()
    assert len(quoted(value)) <= 80


def test_of_many_weights_the_largest_are_shown():
    weights = [(f"e{n}", n / 10) for n in range(36)]
    assert weights_line(weights) == "e35 3.500, e34 3.400, e33 3.300 and 33 more"
