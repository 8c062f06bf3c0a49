"""Strings of strangers in other formats: shown, and never obeyed."""

from __future__ import annotations

import csv
import io
import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from sglora_cli.files.escape import csv_cell, latex_text, markdown_code, markdown_text, printable, shell_word

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Co", "Cn", "Zl", "Zp"])) | st.text(
    st.sampled_from("[]()!<>*_~`\\|#&;:/ab1.-+=$ "), max_size=30
)
GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(source: str) -> str:
    """The plain text of a paragraph of Markdown. Fails if it is or holds anything else."""
    tokens = GITHUB.parse(source)
    assert [token.type for token in tokens] in ([], ["paragraph_open", "inline", "paragraph_close"])
    children = tokens[1].children or [] if tokens else []
    assert {child.type for child in children} <= {"text", "text_special"}
    return "".join(child.content for child in children)


@given(TEXTS)
def test_markdown_shows_the_text_and_nothing_else(text):
    assert shown(markdown_text(text)) == " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "![x](https://evil.example/t.png)",
        "[x](javascript:alert(1))",
        "<img src=x>",
        "<https://evil.example>",
        "[x]: https://evil.example",
        "# heading",
        "1. item",
        "- item",
        "---",
        "> quote",
        "**bold** __bold__ ~~gone~~",
        "`code`",
        "&lt;b&gt;",
    ],
)
def test_each_construct_of_markdown_is_only_text(text):
    assert shown(markdown_text(text)) == text


@pytest.mark.parametrize("text", ["see https://evil.example", "see HTTP://evil.example", "see www.evil.example"])
def test_a_bare_address_is_no_link_on_pages_that_link_them(text):
    escaped = markdown_text(text)
    assert shown(escaped) == text
    assert not re.search(r"\w://|www\.", escaped)


@given(TEXTS, TEXTS)
def test_a_text_stays_in_its_cell(one, other):
    row = f"| {markdown_text(one)} | {markdown_code(other)} |"
    cells = [token for token in GITHUB.parse(f"| a | b |\n|---|---|\n{row}\n") if token.type == "inline"]
    assert len(cells) == 4
    assert {child.type for child in cells[2].children or []} <= {"text", "text_special"}


@given(TEXTS)
def test_code_is_one_word_of_code(text):
    tokens = GITHUB.parse(f"x {markdown_code(text or 'a')}")
    kinds = [child.type for child in tokens[1].children or []]
    assert set(kinds) <= {"text", "code_inline"}


@given(st.text())
def test_a_line_of_latex_stays_one_line(text):
    escaped = latex_text(text)
    assert escaped.isprintable()
    assert not escaped.startswith(("[", "*"))
    plain = escaped.replace("\\%", "").replace("\\&", "").replace("\\#", "").replace("\\$", "")
    assert not set(plain) & set("%&#$")


@given(st.text())
def test_a_word_of_a_shell_is_read_as_it_is(text):
    assert shlex.split(shell_word(text)) == [printable(text)]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", " =1", "\t=1", "\n@x", "\uff1d1"])
def test_a_formula_is_a_text_in_csv(text):
    out = io.StringIO()
    csv.writer(out).writerow([csv_cell(text), csv_cell(-1.5)])
    assert next(csv.reader(io.StringIO(out.getvalue(), newline=""))) == [f"'{text}", "-1.5"]


def test_an_empty_cell_stays_empty():
    assert csv_cell("") == ""


@given(st.text())
def test_a_terminal_is_not_controlled(text):
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()
