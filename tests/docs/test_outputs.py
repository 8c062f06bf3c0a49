"""The tool that updates the outputs of pages keeps what is right, and what `...` stands for stays hidden."""

from __future__ import annotations

import pytest
from console import Shown, difference
from docs.outputs import merged, rewritten, without_places


def shown(*lines: str, vary: bool = False) -> Shown:
    return Shown("sglora x", lines, 1, vary)


@pytest.mark.parametrize(
    ("page", "printed", "updated"),
    [
        (["a 1.50", "b"], "a 1.51\nb\n", ["a 1.50", "b"]),
        (["a 1.50", "b"], "a 1.51\nc\n", ["a 1.50", "c"]),
        (["a 1.50", "b"], "a 1.90\nb\n", ["a 1.90", "b"]),
        (["one word in ... now"], "two words in 3 s now\n", ["two words in ... now"]),
        (["disk: ..."], "Disk: 4 GB\n", ["Disk: ..."]),
        (["...", ".../packs/x"], "p\n/a/packs/x\nq r\n", ["...", ".../packs/x", "q r"]),
        (["a b", "...", "c d e"], "a b\n1\n2\nc d f\n", ["a b", "...", "c d f"]),
        (["a b", "c d", "e f"], "a b\ne g\n", ["a b", "e g"]),
        (["a", "", "b"], "a\n\nnew words here\nb\n", ["a", "", "new words here", "b"]),
        (["name   a", "kind   b   ..."], "name      a\nsort      b 1 2\n", ["name   a", "sort      b   ..."]),
    ],
)
def test_what_is_right_stays_and_the_rest_is_as_printed(page, printed, updated):
    assert list(merged(shown(*page), printed)) == updated
    assert difference(shown(*updated), printed) == ""


def test_a_block_whose_numbers_vary_is_kept_or_has_the_numbers_of_one_run():
    one = shown("mean 30.1 of", "", "...", "the head", vary=True)
    assert merged(one, "mean 40.2 of\nx\nthe head\n") == one.output
    assert merged(one, "mean 40.2 of\nx\nthe heading\n") == ("mean 40.2 of", "", "...", "the heading")
    assert merged(one, "mean 40.2 off\nthe head\n")[0] == "mean 40.2 off"


def test_only_outputs_of_a_page_change():
    text = "# Page\n\n```console\n$ sglora a\nold\n$ sglora b\n```\n\nold\n"
    steps = [Shown("sglora a", ("old",), 4, False), Shown("sglora b", (), 6, False)]
    new = rewritten(text, steps, {4: "new\nlines\n", 6: ""})
    assert new == text.replace("a\nold", "a\nnew\nlines")


def test_folders_of_the_run_are_hidden(tmp_path):
    output = f"{tmp_path}/home/cache/packs/x\n{tmp_path}/a.txt\n"
    assert without_places(output, tmp_path) == ".../packs/x\n.../a.txt\n"
